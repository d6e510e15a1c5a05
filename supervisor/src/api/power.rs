//! What is done to a node by hand: its power is looked at, switched on and off, its kernel interrupted.
//!
//! Why it exists: a machine that is being repaired must be switched by somebody, and better so that the log says who and why,
//! and that no failover is crossed, than past the cluster. What it never does: act. A look changes nothing; all else is one
//! proposal, which the leader carries out if the state machine takes it.

use super::answers::{Committed, LevelPower, NodePower};
use super::change::{Body, Order, Reason, checked, propose};
use super::read::parse;
use super::{ApiState, Code, Problem};
use crate::auth::Caller;
use crate::runtime::Question;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use fencing::{Look, Weight};
use policies::{Command, Hand, Node, NodeId, Power, Refusal};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

/// An order to switch a node's power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Powering {
    /// True: on.
    pub on: bool,
    /// Why; kept for ever.
    pub reason: String,
}

/// Looks at a node's power now, at each of its fencing levels.
#[utoipa::path(get, path = "/v1/nodes/{name}/power", params(("name" = String, Path)), responses((status = 200, body = NodePower), (status = 404, body = Problem)))]
pub(super) async fn look(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<NodePower>, Problem> {
    let name: NodeId = parse(&name)?;
    let node = state.store.read(|state| state.nodes.get(&name).map(|record| record.node.clone()));
    let node = node.ok_or_else(|| Problem::not_there(&format!("node {name}"), "node list"))?;
    let (answer, looks) = oneshot::channel();
    let gone = || Problem::new(Code::NotYet, "this member is starting or stopping", "try again");
    state.ask.send(Question::Power(name.clone(), answer)).await.map_err(|_| gone())?;
    let looks = looks.await.map_err(|_| gone())?;
    let levels = node.fencing.iter().zip(looks);
    let levels = levels.map(|(device, look)| level(&node, device.place(), look)).collect();
    Ok(Json(NodePower { name, levels }))
}

fn level(node: &Node, device: String, look: Result<Look, Refusal>) -> LevelPower {
    let Look { power, identity, weight } = match look {
        Ok(look) => look,
        Err(why) => return LevelPower { device, power: None, guid: None, trouble: Some(why.to_string()) },
    };
    let power = match power {
        Power::On => "on",
        Power::Off => "off",
    };
    let stranger = node.identity.admits(&identity).err().map(|why| why.to_string());
    let noted = "that is what somebody noted earlier: no BMC was read (describe the device's `bmc`)";
    let trouble = stranger.or_else(|| (weight == Weight::Noted).then(|| noted.to_owned()));
    LevelPower { device, power: Some(power.to_owned()), guid: identity.guid, trouble }
}

/// Switches a node on or off by hand: a free spare, or a node in maintenance.
#[utoipa::path(post, path = "/v1/nodes/{name}/power", params(("name" = String, Path)), request_body = Powering, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn switch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(Powering { on, reason }): Body<Powering>,
) -> Result<Json<Committed>, Problem> {
    let (node, reason) = (parse(&name)?, checked(&reason)?);
    let hand = if on { Hand::PowerOn } else { Hand::PowerOff };
    propose(&state, &caller, Command::ByHand { node, hand, reason }).await
}

/// Sends a node's kernel a diagnostic interrupt, on which it dumps and dies.
#[utoipa::path(post, path = "/v1/nodes/{name}/nmi", params(("name" = String, Path)), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn interrupt(Path(name): Path<String>, order: Order) -> Result<Json<Committed>, Problem> {
    let node = parse(&name)?;
    order.propose(|reason| Command::ByHand { node, hand: Hand::Interrupt, reason }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::{Documents, Identity};

    #[test]
    fn a_look_at_another_machine_is_told_as_such() {
        let text = "[[node]]\nname = \"n1\"\nidentity = { guid = \"0A0B\" }\n";
        let documents: Documents = toml::from_str(text).unwrap();
        let node = documents.nodes.first().unwrap();
        let look = |guid: Option<&str>| {
            let identity = Identity { guid: guid.map(ToOwned::to_owned), ..Identity::default() };
            level(node, "ipmi:bmc".to_owned(), Ok(Look { power: Power::On, identity, weight: Weight::Lasts }))
        };
        assert_eq!(look(Some("0a0b")).trouble, None);
        assert_eq!(look(Some("0a0b")).power.as_deref(), Some("on"));
        for other in [Some("ff"), None] {
            let trouble = look(other).trouble.unwrap();
            assert!(trouble.starts_with("the BMC is another machine's"), "{trouble}");
        }
        let noted = Look { power: Power::Off, identity: Identity::default(), weight: Weight::Noted };
        let node_without = Node { identity: Identity::default(), ..node.clone() };
        let noted = level(&node_without, "ironic:cloud/n1".to_owned(), Ok(noted));
        assert!(noted.trouble.unwrap().contains("noted earlier"));
        let mute = level(node, "ipmi:bmc".to_owned(), Err(Refusal::Unreachable("no answer".to_owned())));
        assert_eq!((mute.power, mute.trouble), (None, Some("unreachable: no answer".to_owned())));
    }
}
