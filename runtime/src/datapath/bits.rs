//! Maps of bits that spare the kernel side dearer questions: a bit that is not set says that a table has no such entry.

use aya::maps::{Array, MapData, MapError};

use super::table::write_elements;
use super::{DatapathError, map_error};

/// Such a map, with what it holds.
pub(super) struct Bits {
    name: &'static str,
    array: Array<MapData, u64>,
    holds: Vec<u64>,
}

impl Bits {
    /// Takes over what a predecessor left.
    pub fn adopt(name: &'static str, array: Array<MapData, u64>) -> Result<Self, DatapathError> {
        let holds = array.iter().collect::<Result<_, MapError>>().map_err(|e| map_error(name, &e))?;
        Ok(Bits { name, array, holds })
    }

    /// Sets these bits, each in its element, and leaves the others alone: before the entries that they tell of are there.
    pub fn set(&mut self, bits: impl Iterator<Item = (u32, u64)>) -> Result<(), DatapathError> {
        self.write(self.holds.clone(), bits)
    }

    /// Sets these bits and no others: when the entries that others told of are gone.
    pub fn set_only(&mut self, bits: impl Iterator<Item = (u32, u64)>) -> Result<(), DatapathError> {
        self.write(vec![0; self.holds.len()], bits)
    }

    /// Sets bits again that somebody has cleared; how many words had none of them or some of them alone.
    pub fn put_back(&mut self) -> Result<usize, DatapathError> {
        let set = (0u32..).zip(&self.holds).filter(|(_, word)| **word != 0);
        let mut lost = Vec::new();
        for (element, word) in set {
            let found = self.array.get(&element, 0).map_err(|e| map_error(self.name, &e))?;
            if found & word != *word {
                lost.push((element, found | word));
            }
        }
        write_elements(self.name, &mut self.array, &lost)?;
        Ok(lost.len())
    }

    /// The map's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn write(&mut self, mut wanted: Vec<u64>, bits: impl Iterator<Item = (u32, u64)>) -> Result<(), DatapathError> {
        for (element, bit) in bits {
            if let Some(word) = wanted.get_mut(element as usize) {
                *word |= bit;
            }
        }
        let changed = (0u32..).zip(&wanted).zip(&self.holds).filter(|((_, new), old)| new != old);
        let changed: Vec<(u32, u64)> = changed.map(|((element, new), _)| (element, *new)).collect();
        write_elements(self.name, &mut self.array, &changed)?;
        self.holds = wanted;
        Ok(())
    }
}
