//! The lines that links keep in a recipient's /etc/hosts.
