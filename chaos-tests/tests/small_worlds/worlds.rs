//! The worlds that are explored: each small enough to be exhausted, together every trouble that the design knows.
//!
//! Why it exists: one list says what is claimed and at which size. What it never does: explore.

use super::laws::Law;
use super::rules::Shortcut::*;
use super::rules::{Budget, Rules};

const NONE: Budget = Budget {
    elections: 0,
    restarts: 0,
    lies: 0,
    boots: 0,
    timeouts: 0,
    copies: 0,
    changes: 0,
    cancels: 0,
    releases: 0,
    orders: 0,
    cordons: 0,
};

/// One instance on one node, and so many spares.
const fn world(name: &'static str, spares: usize, budget: Budget) -> Rules {
    Rules { name, instances: 1, spares, ports: false, exclusive: false, budget, shortcut: None }
}

/// Worlds in which no law may break.
pub(crate) fn safe() -> Vec<Rules> {
    vec![
        world(
            "a lie, a self-boot, a late copy, a timeout",
            1,
            Budget { lies: 1, boots: 1, copies: 1, timeouts: 1, ..NONE },
        ),
        world("another leader, a lie, a self-boot", 1, Budget { elections: 1, lies: 1, boots: 1, ..NONE }),
        world(
            "another leader, a late copy, a self-boot",
            1,
            Budget { elections: 1, copies: 1, boots: 1, ..NONE },
        ),
        world("another leader, a timeout", 1, Budget { elections: 1, timeouts: 1, ..NONE }),
        world("the leader is deposed and comes back", 1, Budget { elections: 2, ..NONE }),
        world("the leader restarts twice", 1, Budget { restarts: 2, copies: 1, ..NONE }),
        world(
            "a spare change, a self-boot, a timeout, a late copy",
            2,
            Budget { changes: 1, boots: 1, timeouts: 1, copies: 1, ..NONE },
        ),
        world(
            "a spare change, another leader, a self-boot",
            2,
            Budget { changes: 1, elections: 1, boots: 1, ..NONE },
        ),
        world(
            "a spare change, another leader, a late copy",
            2,
            Budget { changes: 1, elections: 1, copies: 1, ..NONE },
        ),
        world(
            "a spare change, the leader restarts, a timeout",
            2,
            Budget { changes: 1, restarts: 1, timeouts: 1, ..NONE },
        ),
        world("no other spare to change to", 1, Budget { changes: 1, boots: 1, elections: 1, ..NONE }),
        world(
            "a cancel, another leader, a late copy",
            1,
            Budget { cancels: 1, elections: 1, copies: 1, ..NONE },
        ),
        world(
            "a release, the way back, a self-boot, a late copy",
            1,
            Budget { releases: 1, orders: 1, copies: 1, boots: 1, ..NONE },
        ),
        world(
            "a release, the way back, another leader",
            1,
            Budget { releases: 1, orders: 1, elections: 1, ..NONE },
        ),
        world(
            "a release, the way back, a leader that comes back",
            1,
            Budget { releases: 1, orders: 1, elections: 2, ..NONE },
        ),
        world("a cordon of the spare, another leader", 2, Budget { cordons: 1, elections: 1, ..NONE }),
        Rules {
            ports: true,
            ..world(
                "a port: a self-boot, a lie, a late copy",
                1,
                Budget { boots: 1, lies: 1, copies: 1, ..NONE },
            )
        },
        Rules { ports: true, ..world("a port: another leader", 1, Budget { elections: 1, ..NONE }) },
        Rules { instances: 2, ..world("two instances, one spare", 1, Budget { ..NONE }) },
        Rules {
            instances: 2,
            ..world("two instances, one spare, another leader", 1, Budget { elections: 1, ..NONE })
        },
        Rules { instances: 2, ..world("two instances, two spares", 2, NONE) },
        Rules {
            instances: 2,
            ..world("two instances, two spares, another leader", 2, Budget { elections: 1, ..NONE })
        },
        world(
            "all at once: leader, lie, self-boot, spare change",
            2,
            Budget { elections: 1, lies: 1, boots: 1, changes: 1, ..NONE },
        ),
        world(
            "all at once: leader, cancel, late copy, timeout",
            2,
            Budget { elections: 1, cancels: 1, copies: 1, timeouts: 1, ..NONE },
        ),
        Rules {
            exclusive: true,
            ..world(
                "exclusive storage: leader, lie, self-boot, spare change",
                2,
                Budget { elections: 1, lies: 1, boots: 1, changes: 1, ..NONE },
            )
        },
    ]
}

/// Worlds of naive designs, and the law that each must be seen to break.
pub(crate) fn naive() -> Vec<(Rules, Law)> {
    let takes = |shortcut, rules: Rules| Rules { shortcut: Some(shortcut), ..rules };
    vec![
        (
            takes(
                ActsBeforeCommit,
                world("N1 N10 no committed intent", 2, Budget { elections: 1, cordons: 1, ..NONE }),
            ),
            Law::OneOwner,
        ),
        (takes(AckIsProof, world("N2 accepted counts as off", 1, NONE)), Law::ProofFirst),
        (takes(Reset, world("N3 reset in place of off", 1, NONE)), Law::OneOwner),
        (
            takes(NoRevocation, world("N4 no revocation, a self-boot", 1, Budget { boots: 1, ..NONE })),
            Law::OneOwner,
        ),
        (takes(NoRevocation, world("N5 no revocation, a lie", 1, Budget { lies: 1, ..NONE })), Law::OneOwner),
        (
            takes(
                NoRevocation,
                Rules {
                    ports: true,
                    ..world("N4 no port is closed, a self-boot", 1, Budget { boots: 1, ..NONE })
                },
            ),
            Law::OneAddress,
        ),
        (
            takes(
                NoCompareAndSet,
                Rules { instances: 2, ..world("N9 a spare reserved without looking", 1, NONE) },
            ),
            Law::OnePlan,
        ),
        (
            takes(
                NoCompareAndSet,
                Rules { instances: 2, ..world("N9 the same, until it serves two", 1, NONE) },
            ),
            Law::OneInstance,
        ),
        (
            takes(
                SpareChangedFreely,
                world("N6 another spare without a fence", 2, Budget { changes: 1, ..NONE }),
            ),
            Law::OneOwner,
        ),
        (
            takes(CancelAnyTime, world("N8 N14 cancel after the fence", 1, Budget { cancels: 1, ..NONE })),
            Law::OwnerSpared,
        ),
        (
            takes(
                NoQuarantine,
                world("N13 no quarantine, no drain", 1, Budget { orders: 1, copies: 1, ..NONE }),
            ),
            Law::OwnerSpared,
        ),
        (
            takes(NoLease, world("G2 no lease", 1, Budget { elections: 1, releases: 1, orders: 1, ..NONE })),
            Law::OwnerSpared,
        ),
        (
            takes(
                NoLease,
                world(
                    "G2 no lease, a spare change",
                    2,
                    Budget { elections: 1, changes: 1, boots: 1, ..NONE },
                ),
            ),
            Law::OneOwner,
        ),
        (
            takes(
                NoDrain,
                world("G2c no drain, a spare change", 2, Budget { changes: 1, boots: 1, copies: 1, ..NONE }),
            ),
            Law::OneOwner,
        ),
        (
            takes(
                NoDrain,
                world("G2c no drain, the way back", 1, Budget { releases: 1, orders: 1, copies: 1, ..NONE }),
            ),
            Law::OwnerSpared,
        ),
        (
            takes(
                LeaseOfAnyLeadership,
                world(
                    "R10 lease not bound to a leadership",
                    1,
                    Budget { elections: 2, releases: 1, orders: 1, ..NONE },
                ),
            ),
            Law::OwnerSpared,
        ),
    ]
}
