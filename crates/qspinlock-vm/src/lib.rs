//! Virtual machines that run the library's own lock code.
//!
//! [`check`] explores every execution that a weak memory allows, up to stated bounds.

pub mod check;
