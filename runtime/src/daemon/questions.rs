//! What the engine is asked after events: a network with many containers is not asked about for each of them.

use std::collections::BTreeMap;

/// Questions about networks that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// By the network's id; whether something happened there since it was asked.
    networks: BTreeMap<String, bool>,
}

impl Questions {
    /// Something happened on a network that it alone tells of. True where it is to be asked now; where it has been asked already, it is
    /// asked once more after that answer, which may be older.
    pub fn ask(&mut self, network: &str) -> bool {
        if self.outdate(network) {
            return false;
        }
        self.networks.insert(network.to_owned(), false);
        true
    }

    /// Something happened there that is known already: an answer that is on its way may not know it. True where one is.
    pub fn outdate(&mut self, network: &str) -> bool {
        self.networks.get_mut(network).map(|outdated| *outdated = true).is_some()
    }

    /// An answer has come. True where it may be too old, and the network is to be asked again.
    pub fn answered(&mut self, network: &str) -> bool {
        self.networks.remove(network).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Questions;

    #[test]
    fn a_thousand_starts_at_once_are_two_questions() {
        let mut questions = Questions::default();
        let asked = (0..1000).filter(|_| questions.ask("bridge")).count();
        assert!(asked == 1 && questions.ask("another"));
        // The answer may be of the first start alone.
        assert!(questions.answered("bridge") && questions.ask("bridge") && !questions.answered("bridge"));
    }

    #[test]
    fn an_answer_from_before_a_disconnection_is_asked_for_again() {
        let mut questions = Questions::default();
        assert!(!questions.outdate("bridge"), "nobody has asked");
        assert!(questions.ask("bridge") && questions.outdate("bridge") && questions.answered("bridge"));
        assert!(questions.ask("bridge") && !questions.answered("bridge"));
    }
}
