//! Virtual machines that run the library's own lock code.
//!
//! [`check`] explores every execution that a weak memory allows, up to stated bounds; [`time`] says what they would cost on
//! a machine that is not here.

pub mod check;
pub mod time;
