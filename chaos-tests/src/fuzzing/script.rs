//! Bytes as a script: fields read from the front. What is missing reads as zero, so any bytes are a script.

pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Script(bytes)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A length byte and as many bytes.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// One of these, if there is any.
    pub(super) fn pick<'b, T>(&mut self, among: &'b [T]) -> Option<&'b T> {
        among.get(usize::from(self.byte()).checked_rem(among.len())?)
    }

    /// A copy of these bytes with one of them changed.
    pub(super) fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (at, change) = (usize::from(self.u16()), self.byte().max(1));
        let mut bytes = bytes.to_vec();
        if let Some(at) = at.checked_rem(bytes.len()) {
            bytes[at] ^= change;
        }
        bytes
    }
}
