//! How long each part of a failover took, and how long the same took by hand.
//!
//! Why it exists: what is ours is to be told from what firmware, kernels and patience take. All times are the cluster's committed
//! stamps and a client's observations, on one computer's clock. What it never does: measure by itself.

use policies::{Action, Millis, Phase, Plan, Start, Wall};

/// The parts, in their order; each begins where the one before ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// From the fault to the committed decision.
    Detect,
    /// To the committed proof: power seen off twice, volume revoked, port closed.
    Fence,
    /// To the intent to start the spare: volume attached, port opened, boot source set.
    Give,
    /// To the seen end of that: the spare is on, or is told to go on.
    Order,
    /// To the first heartbeat of the new epoch.
    Boot,
    /// To the client's first answer.
    Serve,
}

impl Part {
    pub(super) const ALL: [Part; 6] =
        [Part::Detect, Part::Fence, Part::Give, Part::Order, Part::Boot, Part::Serve];

    /// True if it is this program's work, and not patience, firmware or the instance's own start.
    pub(super) fn is_ours(self) -> bool {
        match self {
            Part::Fence | Part::Give | Part::Order => true,
            Part::Detect | Part::Boot | Part::Serve => false,
        }
    }

    /// A column's title.
    pub(super) fn title(self) -> &'static str {
        match self {
            Part::Detect => "DETECT",
            Part::Fence => "FENCE",
            Part::Give => "GIVE",
            Part::Order => "ORDER",
            Part::Boot => "BOOT",
            Part::Serve => "SERVE",
        }
    }

    /// The median of five failovers by hand with ipmitool, tgtadm and ovs-vsctl, at load 10: facts/lab.md, section 5. There the
    /// kernel started without firmware, from a file of the emulator's.
    pub(super) fn by_hand(self) -> Millis {
        Millis(match self {
            Part::Detect => 2_730,
            // Power off 0.09 s, seen off 0.07 s.
            Part::Fence => 160,
            // Storage 0.04 s, switch 0.01 s.
            Part::Give => 50,
            // Role and power on.
            Part::Order => 100,
            // To init 2.89 s, to the volume 2.63 s.
            Part::Boot => 5_520,
            // Counter read 0.34 s, answer 0.10 s.
            Part::Serve => 440,
        })
    }
}

/// One failover's, by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phases {
    lengths: [Millis; 6],
}

impl Phases {
    /// Of a plan that is done; `None` if one of its stamps is missing.
    pub(super) fn of(plan: &Plan, fault: Wall, served: Wall) -> Option<Phases> {
        let entered = |phase| plan.entered.iter().find(|(entered, _)| *entered == phase).map(|(_, at)| *at);
        let (proven, starting) = (entered(Phase::Moving)?, entered(Phase::Starting)?);
        let starts = |action: &Action| match plan.decision.start {
            Start::Kexec => matches!(action, Action::SetBoot { .. }),
            Start::PowerOn | Start::PowerCycle | Start::Deploy => matches!(action, Action::PowerOn { .. }),
        };
        let started = plan.intents.iter().find(|intent| starts(&intent.action) && intent.is_done())?;
        let (_, ordered) = started.end.as_ref()?;
        // An instance may serve before its node's first heartbeat.
        let heard = entered(Phase::Done)?.min(served);
        let stamps = [fault, plan.at, proven, starting, *ordered, heard, served];
        let pairs = stamps.iter().zip(stamps.iter().skip(1));
        let mut lengths = [Millis(0); 6];
        for (length, (from, to)) in lengths.iter_mut().zip(pairs) {
            *length = to.since(*from);
        }
        Some(Phases { lengths })
    }

    pub(super) fn length(&self, part: Part) -> Millis {
        let of = Part::ALL.iter().zip(self.lengths).find(|(one, _)| **one == part);
        of.map_or(Millis(0), |(_, length)| length)
    }

    /// What is this program's of it.
    pub(super) fn ours(&self) -> Millis {
        sum(Part::ALL.into_iter().filter(|part| part.is_ours()).map(|part| self.length(part)))
    }
}

/// What took as much by hand.
pub(super) fn ours_by_hand() -> Millis {
    sum(Part::ALL.into_iter().filter(|part| part.is_ours()).map(Part::by_hand))
}

fn sum(lengths: impl Iterator<Item = Millis>) -> Millis {
    Millis(lengths.map(|length| length.0).sum())
}

/// Seconds with three decimals.
pub(super) fn seconds(length: Millis) -> String {
    format!("{}.{:03}", length.0 / 1000, length.0 % 1000)
}
