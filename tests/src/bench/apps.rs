//! nginx behind a published port and PostgreSQL behind a link, asked by wrk and pgbench.

/// The host's port of nginx.
pub const NGINX: u16 = 7080;

/// The port inside of a container that a published one leads to.
pub fn inside(port: u16) -> u16 {
    if port == NGINX { 80 } else { port }
}
