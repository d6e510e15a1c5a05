//! Lines that ask for pieces, and a stock that has them: who gets what.
//!
//! Why it exists: whether a node has enough disks, NICs and GPUs for all lines at once is a question of matching, not of
//! hardware. What it never does: know what a piece is; the caller says which fits which line.

/// Gives each line as many pieces of the stock as it asks for, no piece twice, the first lines first; says how many
/// each got. As many are given in all as can be: where a fitting piece was given to an earlier line that could take
/// another, it is exchanged (augmenting paths; Kuhn 1955). Greed alone would refuse nodes that fit, where neither of two
/// lines demands more than the other: a faster port, and one with RDMA.
pub(crate) fn assign<L, S>(
    lines: &[(L, u32)],
    stock: &[(S, u32)],
    fits: impl Fn(&L, &S) -> bool,
) -> Vec<u32> {
    let fits: Vec<Vec<bool>> =
        lines.iter().map(|(line, _)| stock.iter().map(|(piece, _)| fits(line, piece)).collect()).collect();
    let mut table = Table {
        fits,
        left: stock.iter().map(|(_, count)| *count).collect(),
        given: vec![vec![0; stock.len()]; lines.len()],
    };
    for (line, (_, count)) in lines.iter().enumerate() {
        for _ in 0..*count {
            if !table.give(line, &mut vec![false; stock.len()]) {
                break;
            }
        }
    }
    table.given.iter().map(|pieces| pieces.iter().sum()).collect()
}

/// Who got how many of what; by line, then by piece.
struct Table {
    fits: Vec<Vec<bool>>,
    left: Vec<u32>,
    given: Vec<Vec<u32>>,
}

impl Table {
    /// Gives one more piece to a line, if need be by exchanging those of others. `seen`: pieces that were tried in vain.
    fn give(&mut self, line: usize, seen: &mut [bool]) -> bool {
        for piece in 0..self.left.len() {
            let fits = self.fits.get(line).and_then(|fits| fits.get(piece)) == Some(&true);
            let is_new = fits && seen.get_mut(piece).is_some_and(|seen| !std::mem::replace(seen, true));
            if is_new && (self.take_left(piece) || self.take_back(piece, seen)) {
                return self.add(line, piece);
            }
        }
        false
    }

    fn take_left(&mut self, piece: usize) -> bool {
        let left = self.left.get_mut(piece).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    /// Frees a piece by giving another one to some line that has it.
    fn take_back(&mut self, piece: usize, seen: &mut [bool]) -> bool {
        for holder in 0..self.given.len() {
            let holds =
                |table: &Table| table.given.get(holder).and_then(|row| row.get(piece)).copied() > Some(0);
            if holds(self) && self.give(holder, seen) {
                let given = self.given.get_mut(holder).and_then(|row| row.get_mut(piece));
                return given.map(|given| *given -= 1).is_some();
            }
        }
        false
    }

    fn add(&mut self, line: usize, piece: usize) -> bool {
        self.given.get_mut(line).and_then(|row| row.get_mut(piece)).map(|given| *given += 1).is_some()
    }
}
