//! The variables that a link adds to its recipient's environment.
