//! What a machine says of itself, and how much of it is to be believed: the firmware's tables, the command line, CPUID.
//!
//! The test kernel's, but nothing here needs a kernel: bytes come in, and what they say, or why they say nothing, goes
//! out. So it is tested on a host, with input that no firmware would produce.

#![no_std]
#![forbid(unsafe_code)]

pub mod acpi;
mod leaves;
mod words;

pub use leaves::{LeafError, Leaves};
pub use words::{Complaint, Why, Words};
