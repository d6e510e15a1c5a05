//! Looks at clouds again and again: is what is described there still so?
//!
//! Why it exists: who deploys or rewires a node through its cloud does not tell us, and the next failover goes by what is described.
//! What it never does: change a description, or ask a cloud that is in trouble as often as one that is well.

use policies::{ClusterState, ProviderId, ProviderKind};
use provisioning::inventory::{Census, SpareRule, survey};
use raft_store::Store;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two looks at a cloud. A look at 1,000 nodes takes Ironic a few seconds of its database; descriptions change by
/// hand, a few times a day. Lower: load for nothing. Higher: a failover in between goes by the old description.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// The first look after a member has become the leader: what it leads has the network and the cloud to itself until then.
const FIRST_AFTER: Duration = Duration::from_secs(30);
/// The longest pause, after each failure twice the one before: a cloud that is down for a night is asked once an hour.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Time for one look. Nobody waits for it; a cloud whose lists take longer has other troubles.
pub(crate) const LOOK_MAX: Duration = Duration::from_secs(120);

/// The clouds that are looked at.
#[derive(Default)]
pub(crate) struct Rounds(BTreeMap<ProviderId, Round>);

struct Round {
    due: Instant,
    pause: Duration,
    is_under_way: bool,
    last: Option<Result<usize, String>>,
}

/// What a look has brought that was not so before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// For the history.
    Drift(String),
    /// It could not be read; for the log.
    Unread(String),
}

impl Rounds {
    /// The clouds to look at now; none if this member does not lead.
    pub(crate) fn due(&mut self, state: &ClusterState, leads: bool, now: Instant) -> Vec<ProviderId> {
        let is_cloud = |name: &ProviderId| {
            state.providers.get(name).is_some_and(|it| matches!(it.kind, ProviderKind::Openstack { .. }))
        };
        self.0.retain(|name, _| leads && is_cloud(name));
        for name in state.providers.keys().filter(|name| leads && is_cloud(name)) {
            let first = Round { due: now + FIRST_AFTER, pause: LOOK_EVERY, is_under_way: false, last: None };
            self.0.entry(name.clone()).or_insert(first);
        }
        let mut due = vec![];
        for (name, round) in self.0.iter_mut().filter(|(_, round)| now >= round.due && !round.is_under_way) {
            round.is_under_way = true;
            due.push(name.clone());
        }
        due
    }

    /// A look has ended: how many objects are other at the cloud, or gone; or why that is not known.
    pub(crate) fn ended(
        &mut self,
        cloud: &ProviderId,
        seen: Result<usize, String>,
        now: Instant,
    ) -> Option<News> {
        let round = self.0.get_mut(cloud)?;
        let before = round.last.replace(seen.clone());
        round.is_under_way = false;
        round.pause = match seen {
            Ok(_) => LOOK_EVERY,
            Err(_) => (round.pause * 2).min(PAUSE_MAX),
        };
        round.due = now + round.pause;
        // A look that failed says nothing of what there was before it.
        match (before, seen) {
            (Some(Ok(0)) | None | Some(Err(_)), Ok(drifted)) if drifted > 0 => Some(News::Drift(format!(
                "{drifted} objects are other at {cloud} than described, or gone: `hactl openstack drift {cloud}`"
            ))),
            (Some(Ok(drifted)), Ok(0)) if drifted > 0 => {
                Some(News::Drift(format!("what is described of {cloud} is so there again")))
            }
            (Some(Ok(_)) | None, Err(why)) => Some(News::Unread(why)),
            (_, _) => None,
        }
    }

    /// What is known of each cloud.
    pub(crate) fn drifted(&self) -> BTreeMap<&ProviderId, usize> {
        let known = |(name, round): (_, &Round)| Some((name, *round.last.as_ref()?.as_ref().ok()?));
        self.0.iter().filter_map(known).collect()
    }
}

/// Compares what was read of a cloud with what is described by then.
pub(crate) async fn compare(
    store: &Store,
    cloud: &ProviderId,
    census: impl Future<Output = Result<Census, String>>,
) -> Result<usize, String> {
    let census = census.await?;
    let state = store.read(Clone::clone);
    let Some(provider) = state.providers.get(cloud).cloned() else { return Ok(0) };
    let compared = move || survey(&provider, &SpareRule::None, &census).against(&state).drifted();
    tokio::task::spawn_blocking(compared).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> ClusterState {
        let text = "name = \"cloud\"\nkind = \"openstack\"\nkeystone = \"http://h/v3\"\nsecret = \"s\"\n\
                    user = { by = \"application-credential\", id = \"x\" }\n";
        let cloud = toml::from_str::<policies::Provider>(text).unwrap();
        let rack = "name = \"rack\"\nkind = \"rack\"\nurl = \"http://h\"\ntoken = \"t\"\n";
        let rack = toml::from_str::<policies::Provider>(rack).unwrap();
        let providers = [cloud, rack].map(|it| (it.name.clone(), it)).into();
        ClusterState { providers, ..ClusterState::default() }
    }

    #[test]
    fn a_cloud_is_looked_at_by_the_leader_only_and_one_look_at_a_time() {
        let (mut rounds, state, begun) = (Rounds::default(), state(), Instant::now());
        let later = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(rounds.due(&state, false, later(9999)), []);
        assert_eq!(rounds.due(&state, true, later(0)), []);
        let cloud: ProviderId = "cloud".parse().unwrap();
        assert_eq!(rounds.due(&state, true, later(30)), std::slice::from_ref(&cloud));
        assert_eq!(rounds.due(&state, true, later(9999)), [], "it is under way");
        assert_eq!(rounds.ended(&cloud, Ok(0), later(31)), None);
        assert_eq!(rounds.due(&state, true, later(330)), []);
        assert_eq!(rounds.due(&state, true, later(331)), std::slice::from_ref(&cloud));
        // Another leads meanwhile: what comes back is nobody's.
        assert_eq!(rounds.due(&state, false, later(332)), []);
        assert_eq!(rounds.ended(&cloud, Ok(3), later(333)), None);
        assert!(rounds.drifted().is_empty());
    }

    #[test]
    fn drift_is_told_when_it_comes_and_goes_and_a_cloud_in_trouble_is_left_alone() {
        let (mut rounds, state, begun) = (Rounds::default(), state(), Instant::now());
        let cloud: ProviderId = "cloud".parse().unwrap();
        let mut now = begun;
        let mut look = |seen: Result<usize, &str>| {
            let asked = now;
            while rounds.due(&state, true, now).is_empty() {
                now += Duration::from_secs(1);
            }
            let news = rounds.ended(&cloud, seen.map_err(str::to_owned), now);
            ((now - asked).as_secs(), news, rounds.drifted().values().copied().next())
        };
        let drift = |text: &str| Some(News::Drift(text.to_owned()));
        let two = "2 objects are other at cloud than described, or gone: `hactl openstack drift cloud`";
        assert_eq!(look(Ok(2)), (30, drift(two), Some(2)));
        assert_eq!(look(Ok(3)), (300, None, Some(3)));
        assert_eq!(look(Ok(0)), (300, drift("what is described of cloud is so there again"), Some(0)));
        assert_eq!(look(Err("away")), (300, Some(News::Unread("away".to_owned())), None));
        for pause in [600, 1200, 2400, 3600, 3600] {
            assert_eq!(look(Err("away")), (pause, None, None));
        }
        assert_eq!(look(Ok(0)), (3600, None, Some(0)));
        assert_eq!(look(Ok(0)).0, 300);
    }
}
