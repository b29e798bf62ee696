//! The figures of `numa` beside `native`: what it costs to look at domains where there is one.

use super::{Block, Figure, Setting, alone, throughput, two_threads};
use crate::bench::plan::Scenario;
use crate::locks::LockName;
use crate::ui::digits;

const LOCK: LockName = LockName::Numa;
const PLAIN: LockName = LockName::Native;

pub(super) fn blocks(settings: &[Setting<'_>]) -> Vec<Block> {
    let title = "numa, alone, hot: cycles of a lock and unlock (native: at most 1.03, aim 1)";
    vec![alone(settings, title, LOCK, &[(PLAIN, 1.03, 1.0)]), contended(settings)]
}

fn contended(settings: &[Setting<'_>]) -> Block {
    let crowds = settings.iter().filter(|s| s.cell.scenario == Scenario::Contended && s.cell.threads > 2);
    let figure = |setting: &Setting<'_>| {
        let (ratio, rounds) = setting.ratio(LOCK, &[PLAIN], throughput)?;
        let what = format!("{} threads, {}", setting.cell.threads, setting.times());
        Some(Figure::plain(what, format!("{} (n = {rounds})", digits(ratio))).at_least(ratio, 0.97, 1.0))
    };
    Block {
        title: "numa, contended: throughput to native's (on one domain at least 0.97, aim 1)",
        figures: two_threads(settings).chain(crowds).filter_map(figure).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Goal, settings};
    use super::*;
    use crate::bench::row::Placement;
    use crate::bench::verdict::tests::row;

    #[test]
    fn a_loss_of_more_than_three_percent_is_broken() {
        let near = Placement::Near;
        for (ops, goal) in [(9.6, Goal::BoundBroken), (9.8, Goal::BoundKept), (10.0, Goal::AimReached)] {
            let rows = [row(LOCK, 0, near, ops), row(PLAIN, 0, near, 10.0)];
            let block = contended(&settings(&rows));
            assert_eq!((block.figures.len(), block.figures[0].goal), (1, Some(goal)));
        }
    }
}
