//! Random numbers from a seed (splitmix64).
//!
//! Why it exists: the same seed must give the same numbers with any version of any crate.
//! What it never does: ask anybody else.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
    drawn: u64,
}

impl Dice {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Dice { state: seed, drawn: 0 }
    }

    /// A stream of its own for `purpose`, which does not move when others are drawn from.
    pub fn of(seed: u64, purpose: &str) -> Self {
        let mix = |state: u64, byte: u8| Dice::new(state ^ u64::from(byte)).draw();
        Dice::new(purpose.bytes().fold(seed, mix))
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 8 random bits.
    pub fn byte(&mut self) -> u8 {
        self.draw().to_le_bytes()[0]
    }

    /// At least `least` and at most `most`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.draw() % (most - least + 1)
    }

    /// True in `in_thousand` of 1,000 cases.
    pub fn chance(&mut self, in_thousand: u64) -> bool {
        self.draw() % 1000 < in_thousand
    }

    /// One of them; they must not be empty.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let place = self.draw() % choices.len() as u64;
        &choices[usize::try_from(place).unwrap_or(0)]
    }

    /// How many were drawn.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }
}
