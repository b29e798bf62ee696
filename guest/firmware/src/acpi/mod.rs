//! x
/// Memory.
pub trait Memory {
    /// Bytes.
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]>;
}
