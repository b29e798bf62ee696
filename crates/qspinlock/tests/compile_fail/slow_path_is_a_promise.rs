//! A slow path that takes nothing would hand out two `&mut` to the same data: writing one takes an `unsafe`.

use std::convert::Infallible;

use qspinlock::Machine;
use qspinlock::slowpath::SlowPath;
use qspinlock::word::LockWord;

struct Liar;

impl<M: Machine> SlowPath<M> for Liar {
    type Error = Infallible;
    const NAME: &'static str = "liar";

    fn acquire(_: &M, _: &LockWord<M::Cell>) -> Result<(), Infallible> {
        Ok(())
    }
}

fn main() {}
