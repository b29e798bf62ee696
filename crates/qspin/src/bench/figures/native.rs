//! The figures of `native`, the queued spinlock for CPUs of one's own: it is fair, so its peers are the fair ones.

use super::{Block, Figure, Setting, alone, p999, throughput, two_threads};
use crate::locks::LockName;
use crate::ui::{digits, nanos};

const LOCK: LockName = LockName::Native;

pub(super) fn blocks(settings: &[Setting<'_>]) -> Vec<Block> {
    let title = "native, alone, hot: cycles of a lock and unlock (spin: at most 1.2, aim 1.05; others: 0.65, aim 0.5)";
    let peers = [(LockName::Spin, 1.2, 1.05), (LockName::Std, 0.65, 0.5), (LockName::ParkingLot, 0.65, 0.5)];
    vec![alone(settings, title, LOCK, &peers), fair_peers(settings), tails(settings)]
}

fn fair_peers(settings: &[Setting<'_>]) -> Block {
    let is_peer = |lock: &LockName| lock.is_fair() && *lock != LOCK && !lock.is_form_of_another();
    let fair: Vec<LockName> = LockName::working().filter(is_peer).collect();
    let figure = |setting: &Setting<'_>| {
        let (ratio, rounds) = setting.ratio(LOCK, &setting.measured(&fair), throughput)?;
        let aim = if (setting.cell.section_ns, setting.cell.think_ns) == (Some(50), Some(0)) { 1.5 } else { 1.1 };
        let value = format!("{} (n = {rounds})", digits(ratio));
        Some(Figure::plain(setting.times(), value).at_least(ratio, 0.95, aim))
    };
    Block {
        title: "native, two pinned threads: throughput to the best fair peer's (at least 0.95; aim 1.1, and 1.5 at 50/0)",
        figures: two_threads(settings).filter_map(figure).collect(),
    }
}

fn tails(settings: &[Setting<'_>]) -> Block {
    let mut figures = Vec::new();
    let without_thought = |s: &&Setting<'_>| s.cell.think_ns == Some(0) && s.cell.section_ns <= Some(50);
    for setting in two_threads(settings).filter(without_thought) {
        for peer in [LockName::Std, LockName::ParkingLot] {
            let (Some((ratio, _)), Some(ours), Some(theirs)) =
                (setting.ratio(LOCK, &[peer], p999), setting.median(LOCK, p999), setting.median(peer, p999))
            else {
                continue;
            };
            let what = format!("section {}, {}: / {peer}", setting.cell.section_ns.unwrap_or(0), setting.place);
            let value = format!("{} ({} / {})", digits(ratio), nanos(ours), nanos(theirs));
            figures.push(Figure::plain(what, value).at_most(ratio, 1.0, 0.1));
        }
    }
    Block { title: "native, two pinned threads, no think time: p99.9 of the wait (below 1, aim 0.1)", figures }
}

#[cfg(test)]
mod tests {
    use super::super::{Goal, settings};
    use super::*;
    use crate::bench::row::Placement;
    use crate::bench::verdict::tests::row;

    #[test]
    fn the_best_fair_peer_counts() {
        let near = Placement::Near;
        let rows =
            [row(LOCK, 0, near, 14.0), row(LockName::Mcs, 0, near, 10.0), row(LockName::SpinTicket, 0, near, 5.0)];
        let block = fair_peers(&settings(&rows));
        assert_eq!(block.figures.len(), 1);
        assert!(block.figures[0].value.starts_with("1.40"), "{}", block.figures[0].value);
        assert_eq!(block.figures[0].goal, Some(Goal::BoundKept));
    }
}
