//! The engine as its users see it: the real docker CLI, 28 and 20.10, and raw HTTP, against a daemon in
//! a network namespace and a data directory of its own.

mod addresses;
mod adoption;
mod api;
mod bollard;
mod builds;
mod cli;
mod clients;
mod commands;
mod corpus;
mod crash;
mod create;
mod escapes;
mod fields;
mod health;
mod hostile;
mod ignore;
mod instructions;
mod io;
mod isolation;
mod limits;
mod logs;
mod names;
mod networks;
mod power_cut;
mod registry;
mod run_mounts;
mod soak;
mod support;
mod tcp;
mod users;
mod verify;
mod volumes;
mod writes;
