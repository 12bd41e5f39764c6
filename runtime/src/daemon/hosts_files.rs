//! Recipients' /etc/hosts: changed in place, for the file is mounted into the container and must stay the same one.

use std::fs::OpenOptions;
use std::io::{Read, Seek, Write};

use anyhow::Context;

use crate::model::hosts::update_hosts;
use crate::reconcile::HostsPlan;

/// Makes a recipient's file say what its links want. True where it had to be changed.
pub fn write(plan: &HostsPlan) -> anyhow::Result<bool> {
    let context = || format!("cannot update {}", plan.path.display());
    let mut file = OpenOptions::new().read(true).write(true).open(&plan.path).with_context(context)?;
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(context)?;
    let Some(new) = update_hosts(&text, &plan.entries, &plan.removed) else {
        return Ok(false);
    };
    // Shorter text last loses its tail: readers see old or new lines, never half of one.
    file.rewind().with_context(context)?;
    file.write_all(new.as_bytes()).with_context(context)?;
    file.set_len(new.len() as u64).with_context(context)?;
    Ok(true)
}
