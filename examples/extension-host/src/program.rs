//! Guest programs: from text to code that may run here.
//!
//! The virtual machine sees to it that a guest reads and writes nothing but its own stack. What it does not see to is
//! that a guest ends. So the host admits only code that jumps forward, but for one kind of loop:
//!
//! ```text
//! back:   ...
//!         call again          ; may another round begin?
//!         jne r0, 0, back     ; 1: yes
//! ```
//!
//! Nothing may jump between the two. The host says no when it likes, and then there is only forward.

use rbpf::EbpfVmNoData;
use rbpf::ebpf::{self, Insn};

/// What guests may call, by the number that they call it by.
pub(crate) const HELPERS: [&str; 7] = ["lookup", "update", "lock", "unlock", "print", "again", "meet"];
const AGAIN: i32 = 6;

/// Instructions of the longest program.
const LONGEST: usize = 4096;

/// A program that was admitted.
pub(crate) struct Guest {
    pub(crate) name: &'static str,
    pub(crate) code: Vec<u8>,
    /// How often it may go round its loops.
    pub(crate) rounds: u64,
}

impl Guest {
    /// Assembles and admits a program. It is there until the host ends.
    pub(crate) fn load(name: &'static str, text: &str, maps: &[&str], rounds: u64) -> Result<&'static Self, String> {
        let code = rbpf::assembler::assemble(&resolve(text, maps))?;
        EbpfVmNoData::new(Some(&code)).map_err(|error| error.to_string())?;
        admit(&ebpf::to_insn_vec(&code))?;
        Ok(Box::leak(Box::new(Self { name, code, rounds })))
    }
}

/// What the virtual machine's own check lets pass, and we do not.
fn admit(code: &[Insn]) -> Result<(), String> {
    let class = |insn: &Insn| insn.opc & ebpf::BPF_CLS_MASK;
    let is_jump = |insn: &Insn| {
        matches!(class(insn), ebpf::BPF_JMP | ebpf::BPF_JMP32) && !matches!(insn.opc, ebpf::CALL | ebpf::EXIT)
    };
    let target = |at: usize, insn: &Insn| at as i64 + 1 + i64::from(insn.off);
    if code.len() > LONGEST {
        return Err(format!("longer than {LONGEST} instructions"));
    }
    if code.last().is_none_or(|insn| insn.opc != ebpf::EXIT) {
        return Err("the last instruction is not `exit`".to_owned());
    }
    for (at, insn) in code.iter().enumerate() {
        // The second half of a wide load has opcode 0.
        if class(insn) == ebpf::BPF_LD && insn.opc != ebpf::LD_DW_IMM && insn.opc != 0 {
            return Err(format!("#{at}: there is no packet to load from"));
        }
        if insn.opc == ebpf::CALL && (insn.src != 0 || !(1..=HELPERS.len() as i32).contains(&insn.imm)) {
            return Err(format!("#{at}: a call of what is no helper"));
        }
        if is_jump(insn) && target(at, insn) <= at as i64 {
            let asks = at > 0 && code[at - 1].opc == ebpf::CALL && code[at - 1].imm == AGAIN;
            let obeys = insn.opc == ebpf::JNE_IMM && insn.dst == 0 && insn.imm == 0;
            let is_passed_by =
                code.iter().enumerate().any(|(n, other)| is_jump(other) && target(n, other) == at as i64);
            if !asks || !obeys || is_passed_by {
                return Err(format!("#{at}: a jump backward that does not ask `again`"));
            }
        }
    }
    Ok(())
}

/// Replaces the names of labels, helpers and maps by numbers, which is all that the assembler knows. A line is
/// `label: instruction operand, operand ; comment`, each part as needed.
fn resolve(text: &str, maps: &[&str]) -> String {
    let lines = text.lines().map(|line| line.split(';').next().unwrap_or_default().trim());
    let lines: Vec<_> =
        lines.map(|line| line.split_once(':').map_or((None, line), |(l, rest)| (Some(l), rest))).collect();
    let words =
        |line: &str| line.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let mut labels = Vec::new();
    let mut at = 0_i64;
    for (label, line) in &lines {
        labels.extend(label.map(|label| (label, at)));
        at += match words(line).first().map(String::as_str) {
            None => 0,
            Some("lddw") => 2,
            Some(_) => 1,
        };
    }
    let mut out = String::new();
    let mut at = 0_i64;
    for (_, line) in &lines {
        let mut words = words(line);
        let Some((name, operands)) = words.split_first_mut() else { continue };
        at += if name == "lddw" { 2 } else { 1 };
        for operand in operands.iter_mut() {
            let number = |names: &[&str], first| Some(names.iter().position(|n| n == operand)? as i64 + first);
            if let Some((_, label)) = labels.iter().find(|(label, _)| label == operand) {
                *operand = format!("{:+}", label - at);
            } else if let Some(number) = if name == "call" { number(&HELPERS, 1) } else { number(maps, 0) } {
                *operand = number.to_string();
            }
        }
        out += &format!("{name} {}\n", operands.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<&'static Guest, String> {
        Guest::load("guest", text, &["one", "two"], 0)
    }

    #[test]
    fn names_become_numbers() {
        let guest = load("  mov r1, two ; a map\nback: lddw r2, 5\n\n  call again\n  jne r0, 0, back\n  exit").unwrap();
        let code = rbpf::assembler::assemble("mov r1, 1\nlddw r2, 5\ncall 6\njne r0, 0, -4\nexit").unwrap();
        assert_eq!(guest.code, code);
    }

    #[test]
    fn what_cannot_be_stopped_is_not_admitted() {
        load("back: call again\n jne r0, 0, back\n exit").unwrap();
        let refused = [
            ("nobody is asked", "back: mov r0, 1\n jne r0, 0, back\n exit"),
            ("the answer is not heeded", "back: call again\n ja back\n exit"),
            ("another answer", "back: call again\n jne r1, 0, back\n exit"),
            ("to itself", "back: call again\nself: jne r0, 0, self\n exit"),
            ("past the question", "mov r0, 1\n ja in\nback: call again\nin: jne r0, 0, back\n exit"),
            ("half the answer", "back: call again\n jne32 r0, 0, back\n exit"),
            ("a call of its own code", "callx -1\n exit"),
            ("no such helper", "call 8\n exit"),
            ("no packet", "ldabsb 0\n exit"),
            ("no end", "mov r0, 0\n ja +0"),
        ];
        for (why, text) in refused {
            assert!(load(text).is_err(), "{why}");
        }
        let long = "mov r0, 0\n".repeat(LONGEST);
        load(&format!("{long}exit")).err().unwrap();
    }
}
