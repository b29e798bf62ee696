//! What came of the runs of one lock with so many CPUs.

use qspinlock_vm::time::model::Domain;
use qspinlock_vm::time::run::{LockKind, Outcome, Span};

use super::plan::Plan;

/// The medians over the seeds; of the longest wait the longest.
pub(super) struct Row {
    pub(super) lock: LockKind,
    pub(super) cpus: u32,
    /// Acquisitions in a second.
    pub(super) throughput: f64,
    /// Throughput to that of the first lock.
    pub(super) ratio: f64,
    /// The busier half of the CPUs: its share.
    pub(super) fairness: f64,
    /// The busiest domain: how often it had its fair share.
    pub(super) domain_fairness: f64,
    /// Hand-offs that stayed in a domain: the share.
    pub(super) local: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
    pub(super) holder_preemptions: f64,
    pub(super) next_waiter_preemptions: f64,
}

/// All locks with so many CPUs.
pub(super) struct Group {
    pub(super) cpus: u32,
    pub(super) rows: Vec<Row>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 }
}

/// The busiest domain's share to an even one, of the domains that had CPUs.
fn busiest(domains: &[u64]) -> f64 {
    let used: Vec<u64> = domains.iter().copied().filter(|&n| n > 0).collect();
    let total: u64 = used.iter().sum();
    used.iter().max().map_or(1.0, |&most| most as f64 * used.len() as f64 / total as f64)
}

impl Row {
    pub(super) fn of(lock: LockKind, cpus: u32, seeds: &[Outcome], domain: Domain) -> Self {
        let of = |pick: &dyn Fn(&Outcome) -> f64| median(seeds.iter().map(pick).collect());
        Self {
            lock,
            cpus,
            throughput: of(&|o| o.throughput),
            ratio: 1.0,
            fairness: of(&|o| o.fairness),
            domain_fairness: of(&|o| busiest(&o.domains)),
            local: of(&|o| match domain {
                Domain::Node => o.handoffs.in_socket(),
                Domain::L3 => o.handoffs.in_l3(),
            }),
            p50: of(&|o| o.waits.p50 as f64),
            p99: of(&|o| o.waits.p99 as f64),
            p999: of(&|o| o.waits.p999 as f64),
            max: seeds.iter().map(|o| o.waits.max as f64).fold(0.0, f64::max),
            holder_preemptions: of(&|o| o.holder_preemptions as f64),
            next_waiter_preemptions: of(&|o| o.next_waiter_preemptions as f64),
        }
    }

    pub(super) fn json(&self, plan: &Plan) -> serde_json::Value {
        let ns = |span| match span {
            Span::Nanos(ns) => ns,
            Span::Cycles(cycles) => cycles * 1000 / u64::from(plan.model.mhz),
        };
        serde_json::json!({
            "machine": plan.model.name,
            "lock": self.lock.name(),
            "cpus": self.cpus,
            "placement": format!("{:?}", plan.common.placement).to_lowercase(),
            "domain": format!("{:?}", plan.common.domain).to_lowercase(),
            "section_ns": ns(plan.common.section),
            "think_ns": ns(plan.common.think),
            "lines": plan.common.lines,
            "threshold_ns": plan.common.threshold,
            "overcommit": plan.overcommit.map(|(ratio, _)| ratio),
            "seeds": plan.seeds,
            "throughput": self.throughput,
            "ratio": self.ratio,
            "fairness": self.fairness,
            "domain_fairness": self.domain_fairness,
            "local_handoffs": self.local,
            "wait_ns": { "p50": self.p50, "p99": self.p99, "p999": self.p999, "max": self.max },
            "holder_preemptions": self.holder_preemptions,
            "next_waiter_preemptions": self.next_waiter_preemptions,
        })
    }
}

impl Group {
    pub(super) fn of(cpus: u32, mut rows: Vec<Row>) -> Self {
        let first = rows.first().map_or(0.0, |row| row.throughput);
        rows.iter_mut().for_each(|row| row.ratio = row.throughput / first);
        Self { cpus, rows }
    }

    pub(super) fn title(&self) -> String {
        format!("{} CPU{}", self.cpus, if self.cpus == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_shares() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(busiest(&[30, 10, 0, 20]), 1.5);
        assert_eq!(busiest(&[]), 1.0);
    }
}
