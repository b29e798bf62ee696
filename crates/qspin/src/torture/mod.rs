//! To be written.
use crate::failure::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<(), Failure> {
    Err(Failure::failed("not there yet"))
}
