use super::{figures::Block, noise::Noise, session::Outcome, verdict::Group};
use crate::failure::Failure;
pub(super) fn page(
    _f: &[(&'static str, String)],
    _g: &[Group],
    _o: &Outcome,
    _n: &Noise,
    _b: &[Block],
    _r: u32,
) -> Result<String, Failure> {
    Ok(String::new())
}
