//! The states that are known: told apart by a hash, each with the step that led to it first, and where it leads.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// States by number, in the order in which they were found, which is also the order in which they are expanded.
#[derive(Default)]
pub(crate) struct Store {
    keys: Vec<u128>,
    by_key: HashTable<u32>,
    /// The state that a state was first reached from, and the number of the step that led there.
    parents: Vec<(u32, u32)>,
    /// The successors of all expanded states, one state after the other; and where each state's begin.
    edges: Vec<u32>,
    starts: Vec<usize>,
    /// Executions end here.
    finals: Vec<u32>,
}

impl Store {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Notes that a step leads to the state with this key. True if that is new.
    pub(crate) fn insert(&mut self, key: u128, step: Option<(u32, u32)>) -> bool {
        let fresh = self.keys.len() as u32;
        // The key is a hash already.
        let entry = self.by_key.entry(key as u64, |&n| self.keys[n as usize] == key, |&n| self.keys[n as usize] as u64);
        let (number, is_new) = match entry {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(vacant) => {
                vacant.insert(fresh);
                (fresh, true)
            }
        };
        if is_new {
            self.keys.push(key);
            self.parents.push(step.unwrap_or_default());
        }
        if step.is_some() && !self.edges[self.starts.last().copied().unwrap_or(0)..].contains(&number) {
            self.edges.push(number);
        }
        is_new
    }

    /// The next state in line has been expanded: the steps noted since the last call are its own.
    pub(crate) fn expanded(&mut self, is_final: bool) {
        if is_final {
            self.finals.push(self.starts.len().saturating_sub(1) as u32);
        }
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        self.starts.push(self.edges.len());
    }

    /// The numbers of the steps from the first state to this one.
    pub(crate) fn path(&self, mut number: u32) -> Vec<u32> {
        let mut choices = Vec::new();
        while number != 0 {
            let (parent, choice) = self.parents[number as usize];
            choices.push(choice);
            number = parent;
        }
        choices.reverse();
        choices
    }

    /// A state from which no execution comes to an end, the first found. All states must have been expanded.
    pub(crate) fn dead_end(&self) -> Option<u32> {
        let mut ends = vec![false; self.len()];
        self.finals.iter().for_each(|&n| ends[n as usize] = true);
        // Steps mostly lead to later states, so going backwards settles most in one round.
        loop {
            let mut changed = false;
            for n in (0..self.len()).rev() {
                let successors = &self.edges[self.starts[n]..self.starts[n + 1]];
                if !ends[n] && successors.iter().any(|&next| ends[next as usize]) {
                    ends[n] = true;
                    changed = true;
                }
            }
            if !changed {
                return ends.iter().position(|&does| !does).map(|n| n as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 -> 1 -> 2, the end; 0 -> 3 -> 4 -> 3, a circle.
    #[test]
    fn a_circle_without_a_way_out_is_a_dead_end() {
        let mut store = Store::default();
        store.insert(0, None);
        let graph: [&[u128]; 5] = [&[1, 3], &[2], &[4], &[], &[3]];
        // In the order of discovery: 0, 1, 3, 2, 4.
        for (number, (successors, is_final)) in graph.iter().zip([false, false, false, true, false]).enumerate() {
            for (choice, &key) in successors.iter().enumerate() {
                store.insert(key, Some((number as u32, choice as u32)));
            }
            store.expanded(is_final);
        }
        assert_eq!(store.len(), 5);
        let dead = store.dead_end().expect("there is a circle");
        assert_eq!((dead, store.path(dead)), (2, vec![1]));
    }

    #[test]
    fn what_is_known_is_not_new() {
        let mut store = Store::default();
        assert!(store.insert(7, None));
        assert!(store.insert(8, Some((0, 0))));
        assert!(!store.insert(7, Some((0, 1))));
        store.expanded(false);
        store.expanded(true);
        assert_eq!(store.dead_end(), None);
        assert_eq!(store.path(1), [0]);
    }
}
