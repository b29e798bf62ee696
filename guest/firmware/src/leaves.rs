//! CPUID with some leaves replaced: the machine seems to be another one, to who asks through here.
//!
//! An emulator shows its own hypervisor and no other, and what the choice of a lock depends on is mostly that. As
//! text, a leaf, and what is to be in EAX, EBX, ECX and EDX; hexadecimal, and `-` is "as it is":
//!
//! | to seem to be | words |
//! |---|---|
//! | bare metal | `cpuid=1:-,-,0,-` |
//! | KVM with wait and kick | `cpuid=40000000:40000001,4b4d564b,564b4d56,4d cpuid=40000001:80,0,0,0` |
//! | KVM that promises not to preempt | `cpuid=40000000:40000001,4b4d564b,564b4d56,4d cpuid=40000001:80,0,0,1` |
//! | Xen | `cpuid=40000000:40000002,566e6558,65584d4d,4d4d566e` |

use core::fmt;

/// Leaves that can be replaced.
const MOST: usize = 16;

/// What is to be seen instead of what the CPU says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    list: [Leaf; MOST],
    len: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Leaf {
    leaf: u32,
    subleaf: u32,
    registers: [Option<u32>; 4],
}

/// Why a leaf is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafError {
    /// It is not of the form `LEAF:EAX,EBX,ECX,EDX`.
    Form,
    /// A number is none, or has more than 32 bits.
    Number,
    /// There are more than 16.
    Many,
}

impl fmt::Display for LeafError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "not LEAF:EAX,EBX,ECX,EDX or LEAF.SUBLEAF:EAX,EBX,ECX,EDX",
            Self::Number => "not hexadecimal numbers of 32 bits, or '-'",
            Self::Many => "more than 16 leaves",
        })
    }
}

impl core::error::Error for LeafError {}

impl Leaves {
    /// Replaces one more. The last word about a leaf counts.
    ///
    /// # Errors
    /// If it makes no sense, or there is no room. Then nothing changes.
    pub fn add(&mut self, text: &str) -> Result<(), LeafError> {
        let number = |text: &str| u32::from_str_radix(text, 16).map_err(|_| LeafError::Number);
        let (leaf, values) = text.split_once(':').ok_or(LeafError::Form)?;
        let (leaf, subleaf) = leaf.split_once('.').unwrap_or((leaf, "0"));
        let mut registers = [None; 4];
        let mut values = values.split(',');
        for register in &mut registers {
            *register = match values.next().ok_or(LeafError::Form)? {
                "-" => None,
                value => Some(number(value)?),
            };
        }
        if values.next().is_some() {
            return Err(LeafError::Form);
        }
        let place = self.list.get_mut(self.len).ok_or(LeafError::Many)?;
        *place = Leaf { leaf: number(leaf)?, subleaf: number(subleaf)?, registers };
        self.len += 1;
        Ok(())
    }

    /// Whether any is replaced.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is to be seen of a leaf where the CPU says this.
    #[must_use]
    pub fn seen(&self, leaf: u32, subleaf: u32, cpu: [u32; 4]) -> [u32; 4] {
        let mut seen = cpu;
        for other in self.list[..self.len].iter().filter(|other| (other.leaf, other.subleaf) == (leaf, subleaf)) {
            for (register, value) in seen.iter_mut().zip(other.registers) {
                *register = value.unwrap_or(*register);
            }
        }
        seen
    }
}
