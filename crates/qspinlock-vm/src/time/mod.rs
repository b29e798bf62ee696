//! Virtual CPUs in virtual time: what lock code would cost on a machine that is not here.

pub mod cell;
pub mod curves;
mod engine;
pub mod file;
mod host;
mod line;
pub mod locks;
pub mod machine;
pub mod machines;
pub mod model;
mod outcome;
mod random;
mod recorder;
pub mod reference;
pub mod run;
mod setup;
mod waits;
pub mod world;
