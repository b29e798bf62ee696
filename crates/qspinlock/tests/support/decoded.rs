//! The code at every site after the choice, decoded: the forms that the documentation says, direct branches to where
//! they should lead, and no indirect one on the way to the slow path.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use qspinlock::patch::{self, Site, SiteKind};
use qspinlock::select::SlowPathKind;
use qspinlock::start::adopt;
use qspinlock::threads::Threads;

use crate::patching::in_child_of;

/// The instruction at an address of this program.
fn decode(address: u64) -> Instruction {
    // SAFETY: code of this program, and what follows it in the image.
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance::<u8>(address as usize), 15) };
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode()
}

/// The instructions of a site. They end where it ends.
fn decode_site(site: Site) -> Vec<Instruction> {
    let (mut at, end) = (site.address() as u64, (site.address() + site.present().len()) as u64);
    let mut code = Vec::new();
    while at < end {
        let instruction = decode(at);
        assert!(!is_indirect(&instruction), "{instruction}");
        at = instruction.next_ip();
        code.push(instruction);
    }
    assert_eq!(at, end, "{code:?}");
    code
}

fn is_indirect(instruction: &Instruction) -> bool {
    matches!(instruction.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall)
}

fn texts(code: &[Instruction]) -> Vec<String> {
    code.iter().map(|instruction| format!("{:?}", instruction.code())).collect()
}

/// Whether the code from here on leads to `goal` by direct branches, having no indirect one in the function that begins
/// here.
fn leads_to(start: u64, goal: u64, aside: u64) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(at) = open.pop() {
        if !seen.insert(at) || at == goal || at == aside {
            continue;
        }
        let instruction = decode(at);
        assert!(!is_indirect(&instruction), "{at:#x}: {instruction}");
        match instruction.flow_control() {
            FlowControl::Return | FlowControl::Exception => {}
            FlowControl::UnconditionalBranch => open.push(instruction.near_branch_target()),
            FlowControl::ConditionalBranch => open.extend([instruction.near_branch_target(), instruction.next_ip()]),
            FlowControl::Call => {
                // Only the goal is of interest: others are called before it, to see what is chosen.
                if instruction.near_branch_target() == goal {
                    seen.insert(goal);
                }
                open.push(instruction.next_ip());
            }
            _ => open.push(instruction.next_ip()),
        }
    }
    seen.contains(&goal)
}

#[test]
fn sites_are_the_chosen_code() {
    for &kind in SlowPathKind::ALL {
        in_child_of("decoded::sites_are_the_chosen_code", kind.name(), || {
            adopt(kind).expect("nobody has waited");
            let mut seen = [0, 0];
            for site in patch::sites() {
                let code = decode_site(site);
                seen[usize::from(site.kind() == SiteKind::Release)] += 1;
                match (site.kind(), kind) {
                    (SiteKind::Acquire, _) => {
                        assert_eq!(texts(&code), ["Call_rel32_64"]);
                        let target = code[0].near_branch_target();
                        assert_eq!(Some(target as usize), site.target(Some(kind)));
                        assert!(
                            leads_to(
                                target,
                                patch::slow_path::<Threads>(kind) as u64,
                                site.target(None).expect("look-up") as u64
                            ),
                            "{target:#x}"
                        );
                    }
                    (_, SlowPathKind::Paravirt) => {
                        assert_eq!(texts(&code), ["Dec_rm8", "Jne_rel32_64", "Nop_rm32"]);
                        assert_eq!(code[0].to_string(), "lock dec byte ptr [rdi]");
                        assert_eq!(Some(code[1].near_branch_target() as usize), site.target(None));
                    }
                    (_, SlowPathKind::Parking) => {
                        assert_eq!(texts(&code), ["Test_rm8_imm8", "Jne_rel32_64", "Mov_rm8_imm8"]);
                        assert_eq!(code[0].to_string(), "test byte ptr [rdi+1],0FEh");
                        assert_eq!(code[2].to_string(), "mov byte ptr [rdi],0");
                        assert_eq!(Some(code[1].near_branch_target() as usize), site.target(None));
                    }
                    _ => {
                        assert_eq!(texts(&code), ["Mov_rm8_imm8", "Nop_rm16"]);
                        assert_eq!(code[0].to_string(), "mov byte ptr [rdi],0");
                    }
                }
            }
            assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
            // And not to what another one would have.
            let all = SlowPathKind::ALL.iter().map(|&kind| patch::slow_path::<Threads>(kind));
            assert_eq!(all.collect::<BTreeSet<_>>().len(), SlowPathKind::ALL.len());
        });
    }
    // Something to record.
    let lock = qspinlock::Mutex::new(0);
    *lock.lock() += 1;
}
