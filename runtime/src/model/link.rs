//! `--link` in every form that Docker's command line takes.

/// What `--link` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRequest {
    /// The source's name or id as typed, without a leading slash.
    pub source: String,
    /// The alias: the last element of its path.
    pub alias: String,
}
