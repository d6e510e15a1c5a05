//! Never two writers: once a newer grant of a volume has written, no older one does (invariant I1, as the array sees it).

use super::Check;
use crate::field::facts::Facts;

pub(super) const CHECK: Check = Check { statement: "a volume never has two writers", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let volumes = facts.report.volumes.iter().filter(|volume| volume.overlapping_writes > 0);
    volumes
        .map(|volume| {
            format!("{} took {} writes of an older owner", volume.volume, volume.overlapping_writes)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn two_writers_are_said() {
        assert_eq!(
            said(&CHECK, |facts| facts.report.volumes[0].overlapping_writes = 1),
            "vol-1 took 1 writes of an older owner"
        );
    }
}
