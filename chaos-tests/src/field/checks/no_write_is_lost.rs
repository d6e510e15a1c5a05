//! No write that the array acknowledged is lost (the value of each write is one greater than that of the one before).

use super::Check;
use crate::field::facts::Facts;

pub(super) const CHECK: Check = Check { statement: "no acknowledged write is lost", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let volumes = facts.report.volumes.iter().filter(|volume| volume.lost_writes > 0);
    volumes.map(|volume| format!("{} lost {} writes", volume.volume, volume.lost_writes)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn a_lost_write_is_said() {
        assert_eq!(said(&CHECK, |facts| facts.report.volumes[0].lost_writes = 2), "vol-1 lost 2 writes");
    }
}
