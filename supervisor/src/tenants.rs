//! Who shows a Keystone token: a tenant, as a cloud of the inventory knows it.
//!
//! Why it exists: whoever has a project in the cloud looks after its instances here without an account of ours. What it never does:
//! believe a token that Keystone was not asked about within the last minute, keep one, or show one.
//!
//! Every cloud that is described is believed about which project a token is for.

use crate::auth::{Caller, Reach, Role};
use crate::clouds::Clouds;
use openstack::{CallError, Subject};
use policies::{ClusterState, Provider, ProviderId, ProviderKind, TenantId, Wall};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

/// Longest token in bytes that Keystone is asked about: Fernet tokens have some 200, JWS tokens some 1,000.
const TOKEN_BYTES_MAX: usize = 4096;
/// How long what Keystone said is believed. A revoked token opens nothing after that; shorter, and each screen of
/// `hactl watch` asks Keystone. keystonemiddleware's default is 300 s.
const BELIEVED_MAX: Duration = Duration::from_secs(60);
/// Tokens of which something is believed. A few hundred bytes each; more tenants than that ask Keystone more often.
const BELIEVED_TOKENS_MAX: usize = 4096;
/// Longest wait for Keystone: `hactl` asks two members at worst and gives up after 10 s. An answer takes some 100 ms.
const ASK_MAX: Duration = Duration::from_secs(3);
/// Questions to Keystone at a time, from whoever shows any token at all: it has other work.
const ASKING_MAX: usize = 8;
/// While nobody answers there, the same cloud is not asked again for this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Longest name of a user that goes into the log, in bytes; of a longer one the id is taken.
const USER_BYTES_MAX: usize = 64;

/// Why nobody was let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The inventory has no cloud.
    #[error("no cloud is described here, so there are no tenants")]
    NoCloud,
    /// It has several.
    #[error("several clouds are described here")]
    WhichCloud,
    /// It has none of that name.
    #[error("there is no cloud of that name")]
    NotThere,
    /// Keystone does not know the token, or it is over.
    #[error("Keystone does not know your token (any more)")]
    Unknown,
    /// The token is for no project, or for one whose id no instance can name.
    #[error("your token is for no project")]
    NoProject,
    /// None of the roles counts here.
    #[error("you have none of the roles reader, member and admin in the project {0}")]
    NoRole(TenantId),
    /// Keystone could not be asked; why is in this member's log.
    #[error("the Keystone of {0} cannot be asked who you are")]
    CannotTell(ProviderId),
}

/// Looks tokens up, and remembers for a while what was said.
#[derive(Debug)]
pub struct Tenants {
    clouds: Clouds,
    memory: Mutex<Memory>,
    asking: Semaphore,
}

/// A token at a cloud. Of tokens only hashes are kept; they have enough randomness of their own for that.
type Key = (ProviderId, [u8; blake3::OUT_LEN]);

#[derive(Debug, Default)]
struct Memory {
    believed: BTreeMap<Key, Caller>,
    /// Clouds that had no answer, with when they may be asked again.
    resting: BTreeMap<ProviderId, Instant>,
}

impl Tenants {
    /// With sessions of its own, so that no stranger with a wrong token keeps a failover waiting.
    pub fn new(clouds: Clouds) -> Tenants {
        Tenants { clouds, memory: Mutex::default(), asking: Semaphore::new(ASKING_MAX) }
    }

    /// Who shows this token. `now` is this machine's clock, by which the token's end is counted.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn caller(
        &self,
        provider: &Provider,
        token: &Zeroizing<String>,
        now: Wall,
    ) -> Result<Caller, Denied> {
        // Tokens are base64 with dots. What cannot be one must not cost a question, nor look as if ours were refused.
        let may_be_one =
            (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !may_be_one {
            return Err(Denied::Unknown);
        }
        let hash = blake3::derive_key("ha-supervisor 2026-11 Keystone token v1", token.as_bytes());
        let key = (provider.name.clone(), hash);
        if let Some(caller) = self.believed(&key) {
            return Ok(caller);
        }
        let asked = Instant::now();
        let subject = self.ask(provider, token, asked + ASK_MAX).await?.ok_or(Denied::Unknown)?;
        let caller = caller(&subject, asked, now)?;
        self.memory().believe(key, caller.clone(), Instant::now());
        Ok(caller)
    }

    fn believed(&self, key: &Key) -> Option<Caller> {
        let memory = self.memory();
        memory.believed.get(key).filter(|caller| until(caller) > Some(Instant::now())).cloned()
    }

    async fn ask(
        &self,
        provider: &Provider,
        token: &Zeroizing<String>,
        deadline: Instant,
    ) -> Result<Option<Subject>, Denied> {
        let cannot_tell = || Denied::CannotTell(provider.name.clone());
        let rests = self.memory().resting.get(&provider.name).is_some_and(|until| *until > Instant::now());
        if rests {
            return Err(cannot_tell());
        }
        let place = timeout_at(deadline, self.asking.acquire()).await;
        let (Ok(Ok(_place)), cloud) = (place, self.clouds.cloud(provider)) else { return Err(cannot_tell()) };
        let subject = match cloud {
            Ok(cloud) => cloud.subject(token, deadline).await,
            Err(why) => Err(CallError::Unusable { doing: "use it".to_owned(), why: why.to_string() }),
        };
        subject.map_err(|error| {
            tracing::warn!(
                provider = provider.name.as_str(),
                error = policies::causes(&error),
                "no tenant is let in while Keystone does not say whom a token stands for"
            );
            // Only if nobody is there: an odd token that makes Keystone stumble must not shut others out.
            if matches!(error, CallError::Unreachable { .. } | CallError::NoAnswer { .. }) {
                self.memory().resting.insert(provider.name.clone(), Instant::now() + ASK_AGAIN);
            }
            cannot_tell()
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn believe(&mut self, key: Key, caller: Caller, now: Instant) {
        if self.believed.len() >= BELIEVED_TOKENS_MAX {
            self.believed.retain(|_, caller| until(caller) > Some(now));
        }
        if self.believed.len() >= BELIEVED_TOKENS_MAX {
            let first = self.believed.iter().min_by_key(|(_, caller)| until(caller));
            if let Some(key) = first.map(|(key, _)| key.clone()) {
                self.believed.remove(&key);
            }
        }
        self.believed.insert(key, caller);
    }
}

fn until(caller: &Caller) -> Option<Instant> {
    match caller.reach {
        Reach::Tenant { until, .. } => Some(until),
        Reach::Cluster => None,
    }
}

/// The cloud that is to be asked: the one that was named, or the only one.
///
/// # Errors
/// [`Denied`] if that is none.
pub fn cloud(state: &ClusterState, named: Option<&str>) -> Result<Provider, Denied> {
    let is_cloud = |provider: &&Provider| matches!(provider.kind, ProviderKind::Openstack { .. });
    let mut clouds = state.providers.values().filter(is_cloud);
    if let Some(named) = named {
        return clouds.find(|cloud| cloud.name.as_str() == named).cloned().ok_or(Denied::NotThere);
    }
    match (clouds.next(), clouds.next()) {
        (None, _) => Err(Denied::NoCloud),
        (Some(only), None) => Ok(only.clone()),
        (Some(_), Some(_)) => Err(Denied::WhichCloud),
    }
}

/// What a token's subject is here. A role means the same in each project, and nothing outside of it; Keystone names implied roles, too.
fn caller(subject: &Subject, asked: Instant, now: Wall) -> Result<Caller, Denied> {
    let project = subject.project.as_ref().and_then(|project| project.as_str().parse::<TenantId>().ok());
    let tenant = project.ok_or(Denied::NoProject)?;
    let has = |role: &str| subject.roles.iter().any(|has| has.eq_ignore_ascii_case(role));
    let role = match (has("member") || has("admin"), has("reader")) {
        (true, _) => Role::Operator,
        (false, true) => Role::Reader,
        (false, false) => return Err(Denied::NoRole(tenant)),
    };
    let left = u64::try_from(subject.expires.as_millisecond()).unwrap_or(0).saturating_sub(now.0);
    let until = asked + Duration::from_millis(left).min(BELIEVED_MAX);
    let user = [&subject.user_name, &subject.user].into_iter().find(|name| is_plain(name));
    let name = format!("tenant/{tenant}/{}", user.map_or("unnamed", String::as_str));
    Ok(Caller { name, role, reach: Reach::Tenant { tenant, until } })
}

/// Names of users are free text; what goes into the log must not look like something else.
fn is_plain(name: &str) -> bool {
    (1..=USER_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(project: Option<&str>, roles: &[&str], user_name: &str) -> Subject {
        Subject {
            user: "5767".to_owned(),
            user_name: user_name.to_owned(),
            project: project.map(|project| project.parse().unwrap()),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            expires: jiff::Timestamp::from_second(1000).unwrap(),
        }
    }

    fn told(subject: &Subject) -> Result<(String, Role), Denied> {
        caller(subject, Instant::now(), Wall(0)).map(|caller| (caller.name, caller.role))
    }

    #[test]
    fn a_role_counts_in_its_project_and_an_admin_is_no_more_than_a_member() {
        let of = |roles: &[&str]| told(&subject(Some("bf73"), roles, "eve"));
        let name = || "tenant/bf73/eve".to_owned();
        assert_eq!(of(&["reader"]), Ok((name(), Role::Reader)));
        assert_eq!(of(&["member", "reader"]), Ok((name(), Role::Operator)));
        assert_eq!(of(&["Admin"]), Ok((name(), Role::Operator)));
        assert_eq!(of(&["auditor"]), Err(Denied::NoRole("bf73".parse().unwrap())));
        for project in [None, Some("No Project Of Ours")] {
            assert_eq!(told(&subject(project, &["admin"], "eve")), Err(Denied::NoProject));
        }
        let admin = caller(&subject(Some("bf73"), &["admin"], "eve"), Instant::now(), Wall(0)).unwrap();
        assert!(matches!(admin.reach, Reach::Tenant { .. }));
    }

    #[test]
    fn a_user_s_name_looks_like_nothing_else() {
        for name in ["", "a b", "a/b", "line\nbreak", &"x".repeat(65), "é"] {
            assert_eq!(told(&subject(Some("p"), &["member"], name)).unwrap().0, "tenant/p/5767", "{name:?}");
        }
    }

    #[test]
    fn nothing_is_believed_for_longer_than_a_minute_or_than_the_token_lives() {
        let (asked, subject) = (Instant::now(), subject(Some("p"), &["member"], "eve"));
        for (now, left) in [(0, 60_000), (950_000, 50_000), (1_000_000, 0), (2_000_000, 0)] {
            let caller = caller(&subject, asked, Wall(now)).unwrap();
            assert_eq!(until(&caller), Some(asked + Duration::from_millis(left)), "{now}");
        }
    }

    #[test]
    fn so_many_tokens_are_remembered_and_no_more() {
        let mut memory = Memory::default();
        let (now, cloud) = (Instant::now(), "cloud".parse::<ProviderId>().unwrap());
        let mut of = subject(Some("p"), &["member"], "eve");
        for number in 0..=BELIEVED_TOKENS_MAX as u64 {
            of.expires = jiff::Timestamp::from_millisecond(i64::try_from(number).unwrap() + 1).unwrap();
            let mut hash = [0; blake3::OUT_LEN];
            hash.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
            memory.believe((cloud.clone(), hash), caller(&of, now, Wall(0)).unwrap(), now);
        }
        assert_eq!(memory.believed.len(), BELIEVED_TOKENS_MAX);
        assert!(!memory.believed.contains_key(&(cloud, [0; blake3::OUT_LEN])), "the one that ends first");
    }
}
