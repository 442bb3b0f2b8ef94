//! Both ends of the tunnel over real sockets: the server's crate and the device's crate.

mod connect;
mod dialling;
mod fixture;
mod hostile;
mod presence;
mod secure;
mod streams;
