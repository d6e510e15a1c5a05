//! What an instance of the lab leaves on its volume, and what is wrong with it.
//!
//! Why it exists: the volume itself is the witness that nobody lost a write and never two wrote.
//! What it never does: read a volume; it is given the bytes.
//!
//! `chaos-tests/lab/guest/lab/instance` writes it: sector 0 has the newest count, sector `1 + count % 8192` each count with
//! the epoch of its writer. A late write of an old epoch stands between or over those of the new one, whatever it wrote.

use policies::Epoch;
use std::fmt;

const SECTOR: usize = 512;
/// Counts that are kept.
const KEPT: u64 = 8192;
/// Length of a volume.
pub(super) const VOLUME_BYTES: u64 = 16 << 20;

/// One count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) count: u64,
    pub(super) epoch: Epoch,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.count, self.epoch)
    }
}

/// The counts of a volume, oldest first.
pub(super) fn entries(volume: &[u8]) -> Result<Vec<Entry>, String> {
    let mut entries = vec![];
    for (place, sector) in (0..=KEPT).zip(volume.chunks(SECTOR)) {
        let Some(entry) = entry(sector).map_err(|text| format!("sector {place} holds {text:?}"))? else {
            continue;
        };
        if place == 0 {
            continue;
        }
        if 1 + entry.count % KEPT != place {
            return Err(format!("sector {place} holds {entry}, which belongs elsewhere"));
        }
        entries.push(entry);
    }
    entries.sort();
    Ok(entries)
}

/// What one sector says; `None` if it was never written.
fn entry(sector: &[u8]) -> Result<Option<Entry>, String> {
    let text = String::from_utf8_lossy(sector);
    let text = text.trim_end_matches(['\0', '\n']);
    if text.is_empty() {
        return Ok(None);
    }
    let mut words = text.split(' ');
    let read = match (words.next(), words.next(), words.next(), words.next()) {
        (Some("HA"), Some(count), Some(epoch), None) => count.parse().ok().zip(epoch.parse().ok()),
        _ => None,
    };
    let read = read.map(|(count, epoch)| Entry { count, epoch: Epoch(epoch) });
    read.map(Some).ok_or_else(|| text.chars().take(40).collect())
}

/// What is wrong: a count that is missing, or one of an older epoch after one of a newer.
pub(super) fn faults(entries: &[Entry]) -> Vec<String> {
    let pairs = entries.iter().zip(entries.iter().skip(1));
    let fault = |(before, after): (&Entry, &Entry)| {
        if after.count != before.count + 1 {
            Some(format!("{before} is followed by {after}: a count is missing"))
        } else if after.epoch < before.epoch {
            Some(format!("{before} is followed by {after}: two wrote"))
        } else {
            None
        }
    };
    pairs.filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(counts: &[(u64, u64)]) -> Vec<u8> {
        let mut volume = vec![0; usize::try_from(VOLUME_BYTES).unwrap()];
        for (count, epoch) in counts {
            let text = format!("HA {count} {epoch}\n");
            for place in [0, 1 + count % KEPT] {
                let at = usize::try_from(place).unwrap() * SECTOR;
                volume[at..at + text.len()].copy_from_slice(text.as_bytes());
            }
        }
        volume
    }

    fn judged(counts: &[(u64, u64)]) -> Vec<String> {
        faults(&entries(&volume(counts)).unwrap())
    }

    #[test]
    fn counts_that_go_on_in_newer_epochs_are_right_also_around_the_end() {
        assert_eq!(judged(&[]), [""; 0]);
        let around: Vec<(u64, u64)> = (8000..9000).map(|count| (count, 1 + count / 8500)).collect();
        assert_eq!(judged(&around), [""; 0]);
        assert_eq!(entries(&volume(&around)).unwrap().len(), 1000);
    }

    #[test]
    fn a_lost_count_and_a_second_writer_are_seen() {
        assert_eq!(judged(&[(1, 1), (3, 2)]), ["1 in e1 is followed by 3 in e2: a count is missing"]);
        let late = judged(&[(1, 1), (2, 2), (3, 1), (4, 2)]);
        assert_eq!(late, ["2 in e2 is followed by 3 in e1: two wrote"]);
    }

    #[test]
    fn what_is_no_count_is_told() {
        let mut torn = volume(&[(1, 1)]);
        torn[2 * SECTOR] = b'X';
        assert!(entries(&torn).unwrap_err().starts_with("sector 2 holds"));
        let mut moved = volume(&[(1, 1)]);
        moved.copy_within(2 * SECTOR..3 * SECTOR, 5 * SECTOR);
        assert!(entries(&moved).unwrap_err().contains("belongs elsewhere"));
    }
}
