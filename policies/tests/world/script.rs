//! Reads scenario lines and does what they say. The grammar is in `scenarios/README.md`.

use super::machine::{Bmc, Life, Machine};
use super::{ELECTION, Ending, Event, Member, SETTLED, World, variant};
use policies::*;
use std::collections::BTreeMap;
use std::str::FromStr;

/// The provider of nodes that are Ironic's.
pub(super) const CLOUD: &str = "cloud";
/// How long a scenario goes on after its last line if it does not say `until`.
const AFTERWARDS: u64 = 30_000;

/// Builds the world that the script describes and files its timeline. Returns the end of time.
pub(super) fn load(world: &mut World, script: &str) -> Result<u64, String> {
    let mut lines = script.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    lines.next().filter(|(_, title)| title.ends_with('.')).ok_or("line 1 must be a sentence")?;
    let (mut setup, mut armed, mut end) = (Documents::default(), true, None);
    setup.providers.extend([rack()?, pxe()?]);
    let mut last = 0;
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let mut read = || -> Result<(), String> {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["at", time, ..] => {
                    let at = SETTLED + millis(time)?;
                    let act = line.split_once(time).map_or("", |(_, act)| act.trim());
                    last = last.max(at);
                    world.at(at, Event::Line(number, act.to_owned()));
                }
                ["until", time] => end = Some(SETTLED + millis(time)?),
                ["check", ..] => check(world, line)?,
                ["disarmed"] => armed = false,
                ["commit", time] => world.commit_delay = millis(time)?,
                ["domains", domains @ ..] => {
                    for (member, domain) in world.members.values_mut().zip(domains) {
                        let id = member.engine.view(Now::default()).member;
                        member.engine = Engine::new(id, BootId(1), domain);
                    }
                }
                words => describe(world, &mut setup, words)?,
            }
            Ok(())
        };
        read().map_err(|why| format!("line {number}: {why}"))?;
    }
    begin(world, setup, armed);
    Ok(end.unwrap_or(last + AFTERWARDS))
}

/// The cluster starts, learns the documents and is armed; m1 leads.
fn begin(world: &mut World, setup: Documents, armed: bool) {
    let voters: Vec<MemberId> = world.members.keys().copied().collect();
    for id in voters.clone() {
        world.feed(id, Input::Installed(Box::default()));
        world.feed(id, Input::Voters(voters.clone()));
    }
    operator(world, Command::Describe(Box::new(setup)));
    if armed {
        operator(world, Command::Arm { reason: "ready".to_owned() });
    }
    world.at(0, Event::Elected(MemberId(1)));
}

fn operator(world: &mut World, command: Command) {
    let by = "admin".to_owned();
    world.after(0, Event::Commit { from: MemberId(0), ticket: 0, command, by });
}

fn rack() -> Result<Provider, String> {
    let (url, token) = ("http://127.0.0.1:1".to_owned(), Sealed("sealed".to_owned()));
    Ok(Provider { name: parse("rack")?, kind: ProviderKind::Rack { url, token } })
}

/// What a hot spare and what goes on from there boot.
fn linux() -> Result<Boot, String> {
    Ok(Boot { provider: parse("pxe")?, image: "linux".to_owned() })
}

/// The members' own boot service, with the image `linux`.
fn pxe() -> Result<Provider, String> {
    let linux = Image::Linux { kernel: "http://h/vmlinuz".to_owned(), initrd: vec![], args: String::new() };
    let (urls, images) = (vec![parse("http://m1:7480")?], BTreeMap::from([("linux".to_owned(), linux)]));
    Ok(Provider { name: parse("pxe")?, kind: ProviderKind::Boot { urls, images } })
}

fn parse<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|why: T::Err| why.to_string())
}

fn millis(text: &str) -> Result<u64, String> {
    match text.split_once('.') {
        // Seconds with a fraction, as the output prints them.
        Some((seconds, rest)) => {
            let rest = rest.strip_suffix('s').filter(|rest| rest.len() == 3).ok_or("write 1.250s")?;
            Ok(parse::<u64>(seconds)? * 1000 + parse::<u64>(rest)?)
        }
        None => parse::<Millis>(text).map(|length| length.0),
    }
}

fn pairs<'a>(words: &[&'a str]) -> Result<BTreeMap<&'a str, &'a str>, String> {
    let pair = |word: &&'a str| word.split_once('=').or(Some((*word, ""))).ok_or_else(String::new);
    words.iter().map(pair).collect()
}

fn number<T: FromStr<Err: std::fmt::Display>>(
    options: &mut BTreeMap<&str, &str>,
    key: &str,
    usual: T,
) -> Result<T, String> {
    options.remove(key).map_or(Ok(usual), parse)
}

/// `node`, `instance` and `policy` lines become documents; new nodes become machines.
fn describe(world: &mut World, documents: &mut Documents, words: &[&str]) -> Result<(), String> {
    match words {
        ["node", name, options @ ..] => {
            let mut options = pairs(options)?;
            let hot = options.remove("hot").is_some();
            let on = options.remove("on").is_some() || hot;
            let absent = options.remove("absent").is_some();
            let node = node(parse(name)?, hot, &mut options)?;
            let epoch = if hot { Epoch::STANDBY } else { Epoch(0) };
            let mut machine = Machine::new(on && !absent, node.agent_key.is_some(), epoch);
            machine.has_service = node.probe.http.is_some();
            world.machines.entry(node.name.clone()).or_insert(machine);
            if absent {
                world.endings.push((format!("absent {name}"), Ending { after: None, outcome: None }));
            }
            let is_known = documents.providers.iter().any(|known| known.name.as_str() == CLOUD);
            if !is_known && node.fencing.iter().any(|device| device.cloud().is_some()) {
                documents.providers.push(cloud()?);
            }
            documents.nodes.push(node);
        }
        ["instance", name, "on", node, options @ ..] => {
            let mut options = pairs(options)?;
            let instance = instance(parse(name)?, parse(node)?, &mut options)?;
            let absent = world.endings.iter().any(|(prefix, _)| *prefix == format!("absent {node}"));
            if let Some(machine) = world.machines.get_mut(&instance.node).filter(|_| !absent) {
                (machine.power, machine.life, machine.epoch) = (true, Life::Beats, Epoch(1));
            }
            documents.instances.push(instance);
        }
        ["has", name, table @ ..] => {
            let name: NodeId = parse(name)?;
            let described = documents.nodes.extract_if(.., |node| node.name == name).last();
            let known =
                described.or_else(|| world.truth.nodes.get(&name).map(|record| Node::clone(&record.node)));
            let capabilities = toml_table(table)?;
            documents.nodes.push(Node { capabilities, ..known.ok_or("no such node")? });
        }
        ["requires", name, table @ ..] => {
            let name: InstanceId = parse(name)?;
            let described = documents.instances.extract_if(.., |instance| instance.name == name).last();
            let known = world.truth.instances.get(&name).map(|record| Instance::clone(&record.instance));
            let requires = toml_table(table)?;
            documents.instances.push(Instance { requires, ..described.or(known).ok_or("no such instance")? });
        }
        ["policy", name, changes @ ..] => {
            let (name, policy) = (parse(name)?, policy(&world.truth, name, changes)?);
            documents.policies.push(PolicyDocument { name, policy });
        }
        words => return Err(format!("cannot read {:?}", words.join(" "))),
    }
    Ok(())
}

/// The inside of a TOML table, as it stands in a document.
fn toml_table<T: serde::de::DeserializeOwned>(words: &[&str]) -> Result<T, String> {
    let mut table: BTreeMap<String, T> =
        toml::from_str(&format!("it = {{ {} }}", words.join(" "))).map_err(|e| e.message().to_owned())?;
    table.remove("it").ok_or_else(String::new)
}

fn node(name: NodeId, hot: bool, options: &mut BTreeMap<&str, &str>) -> Result<Node, String> {
    let levels: u8 = number(options, "levels", 1)?;
    let ports: u8 = number(options, "ports", 1)?;
    let address = options.remove("bmc").map_or_else(|| format!("{name}.bmc"), str::to_owned);
    let is_ironics = options.remove("ironic").is_some();
    let ipmi = (1..=levels).map(|level| FenceDevice::Ipmi {
        address: if level == 1 { address.clone() } else { format!("{address}-{level}") },
        user: "ha".to_owned(),
        password: Sealed("sealed".to_owned()),
        cipher_suite: 17,
        boot_device: None,
        console: false,
    });
    let port = |i| match is_ironics {
        true => Ok(SwitchPort { provider: parse(CLOUD)?, port: uuid(&format!("{name}-{i}")) }),
        false => Ok(SwitchPort { provider: parse("rack")?, port: format!("{name}-{i}") }),
    };
    let agent_key = options.remove("agentless").is_none().then(|| Sealed("sealed".to_owned()));
    let tcp = options.remove("blind").is_none().then(|| format!("{name}:22"));
    let identity = Identity { guid: options.remove("guid").map(str::to_owned), ..Identity::default() };
    let ports = (1..=ports).map(port).collect::<Result<_, String>>()?;
    let fencing = if is_ironics { vec![ironic(&name)?] } else { ipmi.collect() };
    let http = options.remove("http").map(|_| parse(&format!("http://{name}:8080/healthz"))).transpose()?;
    let probe = Probe { tcp, http, ..Probe::default() };
    let labels = labels(options);
    let domains = options.iter().filter(|(key, _)| !is_label(key));
    let domains = domains.map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let capabilities = Capabilities::default();
    let octets: String =
        name.as_str().bytes().rev().chain([0; 3]).take(3).map(|octet| format!(":{octet:02x}")).collect();
    let mac = parse(&format!("02:00:00{octets}"))?;
    Ok(Node {
        initiator: Some(format!("iqn.{name}")),
        name,
        identity,
        domains,
        labels,
        fencing,
        ports,
        boot_macs: vec![mac],
        standby: hot.then(linux).transpose()?,
        probe,
        agent_key,
        capabilities,
    })
}

/// A node of that name at the cloud, its BMC unknown to us.
fn ironic(name: &NodeId) -> Result<FenceDevice, String> {
    Ok(FenceDevice::Ironic { provider: parse(CLOUD)?, node: uuid(name.as_str()), bmc: None })
}

/// The same for the same short name.
fn uuid(name: &str) -> String {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("00000000-0000-4000-8000-{digits:0>12}")
}

/// The cloud of such nodes.
fn cloud() -> Result<Provider, String> {
    let user = CloudUser::ApplicationCredential { id: "credential".to_owned() };
    let (keystone, interface) = ("http://127.0.0.1:1/v3".to_owned(), CloudInterface::Public);
    let cloud = CloudAccess { keystone, ca: None, region: None, interface, user };
    let secret = Sealed("sealed".to_owned());
    Ok(Provider {
        name: parse(CLOUD)?,
        kind: ProviderKind::Openstack { cloud, secret, deployments: BTreeMap::new() },
    })
}

fn is_label(key: &str) -> bool {
    key.starts_with("label.")
}

fn labels(options: &BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    let label = |(key, value): (&&str, &&str)| Some((key.strip_prefix("label.")?.into(), (*value).into()));
    options.iter().filter_map(label).collect()
}

fn instance(name: InstanceId, node: NodeId, options: &mut BTreeMap<&str, &str>) -> Result<Instance, String> {
    let volumes: u8 = number(options, "volumes", 1)?;
    let networks: u8 = number(options, "networks", 1)?;
    let vlan: u16 = number(options, "vlan", 10)?;
    let is_clouds = options.remove("cloud").is_some();
    let provider = if is_clouds { CLOUD } else { "rack" };
    let volume = |i| {
        let id = if i == 1 { format!("vol-{name}") } else { format!("vol-{name}-{i}") };
        Ok(Volume { provider: parse(provider)?, volume: parse(&id)? })
    };
    let volumes = (1..=volumes).map(volume).collect::<Result<_, String>>()?;
    let network = |number| match is_clouds {
        true => Network::Vif(uuid(&format!("{name}{number}"))),
        false => Network::Vlans(Vlans { vlan, tagged: Default::default(), mac: None }),
    };
    let networks = (1..=networks).map(network).collect();
    let named = options.remove("unnamed").is_none();
    let policy = named.then(|| parse(options.remove("policy").unwrap_or("quick"))).transpose()?;
    let tenant = options.remove("tenant").map(parse).transpose()?;
    let labels = labels(options);
    let boot = options.remove("noboot").is_none();
    let boot = match options.remove("kexec") {
        Some(_) => boot.then(linux),
        None => boot.then(|| Ok(Boot { provider: parse(provider)?, image: format!("img-{name}") })),
    };
    let needs = options.iter().filter(|(key, _)| !is_label(key));
    let needs = needs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let requires = Requirements::default();
    let boot = boot.transpose()?;
    Ok(Instance { name, node, policy, tenant, labels, volumes, networks, boot, needs, requires })
}

/// The named policy, or a copy of `quick` under a new name, with `key=value` changes. Contradictions are left in it
/// for the engine to find.
fn policy(state: &ClusterState, name: &str, changes: &[&str]) -> Result<Policy, String> {
    let record = state.policies.iter().find(|(id, _)| id.as_str() == name);
    let record = record.or_else(|| state.policies.iter().find(|(id, _)| id.as_str() == "quick"));
    let mut value = serde_json::to_value(&record.ok_or("no preset")?.1.policy).map_err(|e| e.to_string())?;
    for (key, change) in pairs(changes)? {
        let change = serde_json::from_str(change).unwrap_or_else(|_| change.into());
        let slot = value.pointer_mut(&format!("/{}", key.replace('.', "/")));
        match (slot, key.split_once('.')) {
            (Some(slot), _) => *slot = change,
            // An absent option of a section, which may be absent itself.
            (None, Some((section, name))) if KEYS.iter().any(|known| known.name == key) => {
                let sections = value.as_object_mut().ok_or("no document")?;
                let section = sections.entry(section).or_insert_with(|| serde_json::json!({}));
                section.as_object_mut().ok_or("no section")?.insert(name.to_owned(), change);
            }
            (None, _) => return Err(format!("no key {key:?}")),
        }
    }
    serde_json::from_value(value).map_err(|e| e.to_string())
}

/// Does one line of the timeline.
pub(super) fn act(world: &mut World, line: &str) -> Result<(), String> {
    let plan = world.truth.plans.keys().last().map_or(0, |plan| plan.0);
    let token =
        world.truth.plans.values().flat_map(|plan| &plan.intents).map(|i| i.token.0).max().unwrap_or(0);
    let line = line.replace("$plan", &plan.to_string()).replace("$token", &token.to_string());
    if let Some((action, ending)) = line.split_once("=>") {
        let action = action.trim();
        world.endings.retain(|(prefix, _)| prefix != action);
        if ending.trim() != "done" {
            world.endings.push((action.to_owned(), read_ending(ending.trim())?));
        }
        return Ok(());
    }
    if let Some(json) = line.strip_prefix("leader writes ") {
        return leader_writes(world, json);
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["check", ..] => check(world, &line),
        ["operator:", verb, rest @ ..] => order(world, verb, rest),
        ["log", "loses"] => {
            world.log_loses = true;
            Ok(())
        }
        ["log", "works"] => {
            world.log_loses = false;
            Ok(())
        }
        ["leader", "dies"] => world.leader.map_or(Ok(()), |leader| member(world, leader, &["dies"])),
        ["leadership", "moves", "to", to, late @ ..] => {
            move_leadership(world, parse(to)?, late == ["late"]);
            Ok(())
        }
        [name, "tells", table @ ..] => {
            let (node, found): (NodeId, Capabilities) = (parse(name)?, toml_table(table)?);
            for id in world.up() {
                world.feed(id, Input::Found { node: node.clone(), found: Box::new(found.clone()) });
            }
            Ok(())
        }
        [name, rest @ ..] => match (parse::<MemberId>(name), parse::<NodeId>(name)) {
            (Ok(id), _) if name.starts_with('m') && world.members.contains_key(&id) => {
                member(world, id, rest)
            }
            (_, Ok(node)) if world.machines.contains_key(&node) => machine(world, &node, rest),
            (_, _) => Err(format!("cannot read {line:?}")),
        }
        .map_err(|_| format!("cannot read {line:?}")),
        [] => Err("an empty line".to_owned()),
    }
}

fn read_ending(text: &str) -> Result<Ending, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let refused = |refusal| Ok(Ending { after: Some(50), outcome: Some(Outcome::Refused(refusal)) });
    match words.as_slice() {
        ["hangs"] => Ok(Ending { after: None, outcome: None }),
        ["takes", time] => Ok(Ending { after: Some(millis(time)?), outcome: None }),
        ["stays", reading] => {
            let doubt = Doubt::NotSeen { waited: Millis(4000), last: (*reading).to_owned() };
            Ok(Ending { after: Some(4000), outcome: Some(Outcome::Unknown(doubt)) })
        }
        ["fails", rest @ ..] => {
            let doubt = Doubt::Failed { waited: Millis(4000), last: rest.join(" ") };
            Ok(Ending { after: Some(4000), outcome: Some(Outcome::Unknown(doubt)) })
        }
        ["refused", kind, rest @ ..] => {
            let text = rest.join(" ");
            refused(match *kind {
                "lease-ended" => Refusal::LeaseEnded,
                "wrong-identity" => {
                    Refusal::WrongIdentity { expected: "aa".repeat(16), found: "bb".repeat(16) }
                }
                "not-admitted" => Refusal::NotAdmitted(text),
                "unreachable" => Refusal::Unreachable(text),
                "device-refused" => Refusal::DeviceRefused(text),
                "token-too-old" => Refusal::TokenTooOld { ours: LogIndex(1), newest: LogIndex(9) },
                "held-by-other" => Refusal::HeldByOther(text),
                "not-configured" => Refusal::NotConfigured(text),
                other => return Err(format!("no refusal {other:?}")),
            })
        }
        _ => Err(format!("no ending {text:?}")),
    }
}

/// `check OBJECT finds KIND TEXT`: what providers say from now on of the objects whose names begin so.
fn check(world: &mut World, line: &str) -> Result<(), String> {
    let (object, finding) = line.split_once(" finds ").ok_or("write: check OBJECT finds KIND TEXT")?;
    let (kind, text) = finding.split_once(' ').unwrap_or((finding, ""));
    let text = text.to_owned();
    let finding = match kind {
        "fine" => Finding::Fine,
        "absent" => Finding::Absent(text),
        "faulty" => Finding::Faulty(text),
        "unclaimed" => Finding::Unclaimed,
        "nothing" => Finding::CannotTell(text),
        other => return Err(format!("no finding {other:?}")),
    };
    world.findings.push((object.trim_start_matches("check ").to_owned(), finding));
    Ok(())
}

/// A step as the leader could put it into the log, for what the planner would never propose.
fn leader_writes(world: &mut World, json: &str) -> Result<(), String> {
    let step: Step = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let leader = world.truth.leadership.map_or(LeaderEpoch(0), |leadership| leadership.epoch);
    operator(world, Command::Lead { leader, step });
    Ok(())
}

fn order(world: &mut World, verb: &str, rest: &[&str]) -> Result<(), String> {
    let command = match (verb, rest) {
        ("force", [verb, rest @ ..]) => {
            let order = command(world, verb, rest)?;
            forced(world, order)?
        }
        (_, _) => command(world, verb, rest)?,
    };
    operator(world, command);
    Ok(())
}

/// With what the leader says that the order leaves without cover.
fn forced(world: &World, order: Command) -> Result<Command, String> {
    let leader = world.leader.and_then(|leader| Some((leader, world.members.get(&leader)?)));
    let (leader, member) = leader.ok_or("nobody leads who could tell what is covered")?;
    let view = member.engine.view(world.clock(leader));
    let proposal = Proposal { at: Wall(world.now), by: "admin".to_owned(), command: order.clone() };
    let gaps: Vec<String> = gaps(&world.truth, &view, &proposal).iter().map(ToString::to_string).collect();
    Ok(if gaps.is_empty() { order } else { Command::Forced { order: Box::new(order), gaps } })
}

fn command(world: &mut World, verb: &str, rest: &[&str]) -> Result<Command, String> {
    let is_until = |word: &&&str| word.starts_with("until=");
    let until = rest.iter().find(is_until).map(|word| parse::<Millis>(word.trim_start_matches("until=")));
    let until = until.transpose()?.map(|time| Wall(SETTLED + time.0));
    let rest: Vec<&str> = rest.iter().filter(|word| !is_until(word)).copied().collect();
    let rest = rest.as_slice();
    let reason = rest.get(1..).unwrap_or_default().join(" ");
    let first = rest.first().copied().unwrap_or_default();
    let node = || parse::<NodeId>(first);
    Ok(match verb {
        "arm" => Command::Arm { reason: rest.join(" ") },
        "disarm" => Command::Disarm { reason: rest.join(" "), until },
        "note" => Command::Note { text: rest.join(" ") },
        "cordon" => Command::Cordon { node: node()?, on: true },
        "uncordon" => Command::Cordon { node: node()?, on: false },
        "maintenance" => {
            let reason = Some(reason).filter(|reason| reason != "ends");
            Command::Maintain { node: node()?, reason, until }
        }
        "backup" => Command::Backup { instance: parse(first)?, reason },
        "evacuate" => Command::Evacuate { instance: parse(first)?, reason },
        "drain" => {
            let shutdown = Millis::secs(30);
            Command::Drain { node: node()?, reason, shutdown }
        }
        "fence" => Command::Fence { node: node()?, reason },
        "confirm-off" => Command::ConfirmOff { node: node()?, reason },
        "cancel" => Command::Cancel { plan: parse(first)?, reason },
        "approve" => Command::Approve { instance: parse(first)?, reason },
        "release" => Command::Release { node: node()?, reason },
        "power-on" => Command::ByHand { node: node()?, hand: Hand::PowerOn, reason },
        "power-off" => Command::ByHand { node: node()?, hand: Hand::PowerOff, reason },
        "nmi" => Command::ByHand { node: node()?, hand: Hand::Interrupt, reason },
        "delete" => {
            let what = match first.split_once('/') {
                Some(("node", name)) => Object::Node(parse(name)?),
                Some(("instance", name)) => Object::Instance(parse(name)?),
                Some(("provider", name)) => Object::Provider(parse(name)?),
                Some(_) | None => return Err(format!("{first:?} is not KIND/NAME")),
            };
            Command::Delete { what, reason }
        }
        "delete-policy" => Command::DeletePolicy { name: parse(first)?, check: None, reason },
        "policy" => {
            let is_check = |word: &&&str| word.starts_with("check=");
            let check = rest.iter().find(is_check).map(|word| parse(word.trim_start_matches("check=")));
            let changes: Vec<&str> = rest.iter().skip(1).filter(|word| !is_check(word)).copied().collect();
            let (name, policy) = (parse(first)?, Box::new(policy(&world.truth, first, &changes)?));
            let reason = "as the script says".to_owned();
            Command::SetPolicy { name, policy, check: check.transpose()?, reason }
        }
        kind => {
            let mut documents = Documents::default();
            let words: Vec<&str> = [&[kind], rest].concat();
            describe(world, &mut documents, &words)?;
            Command::Describe(Box::new(documents))
        }
    })
}

fn member(world: &mut World, id: MemberId, what: &[&str]) -> Result<(), String> {
    let (now, truth) = (world.now, world.truth.clone());
    let all = world.machines.keys().cloned().collect();
    let Some(member) = world.members.get_mut(&id) else { return Err(String::new()) };
    match what {
        ["dies"] => {
            member.up = false;
            if world.leader == Some(id) {
                world.elected(None);
                if let Some(next) = world.up().first() {
                    world.after(ELECTION, Event::Elected(*next));
                }
            }
        }
        ["restarts"] => {
            let domain = format!("rack {id}");
            let _replaced = std::mem::replace(member, Member::new(id, member.life + 1, now, &domain));
            let voters: Vec<MemberId> = world.members.keys().copied().collect();
            world.feed(id, Input::Installed(Box::new(truth)));
            world.feed(id, Input::Voters(voters));
            if world.leader == Some(id) {
                world.elected(None);
                world.after(ELECTION, Event::Elected(id));
            } else {
                world.feed(id, Input::Leader { leader: world.leader });
            }
        }
        ["lags"] => member.lags = true,
        ["catches", "up"] => {
            member.lags = false;
            world.feed(id, Input::Installed(Box::new(truth)));
        }
        ["reports", "are", "held", "up"] => member.held_up = Some(vec![]),
        ["reports", "arrive"] => {
            for report in member.held_up.take().unwrap_or_default() {
                world.broadcast(id, report);
            }
        }
        ["is", "cut", "off"] => member.cut_off = all,
        ["is", "cut", "off", "from", node] => {
            member.cut_off.insert(parse(node)?);
        }
        ["cannot", "ask", node] => {
            member.cannot_ask.insert(parse(node)?);
        }
        ["recovers"] => {
            member.cut_off.clear();
            member.cannot_ask.clear();
        }
        _ => return Err(String::new()),
    }
    Ok(())
}

/// Another member leads from now on. `late`: entries that the old leader proposed reach the log after the take-over.
fn move_leadership(world: &mut World, to: MemberId, late: bool) {
    let is_open = |event: &Event| matches!(event, Event::Commit { by, .. } if by.starts_with("member/"));
    let open: Vec<Event> =
        world.queue.extract_if(.., |_, event| is_open(event)).map(|(_, event)| event).collect();
    world.last_commit = world.now;
    world.elected(Some(to));
    for event in open {
        match event {
            event if late => world.commit_in_turn(event),
            Event::Commit { from, ticket, .. } => world.after(0, Event::Answered { to: from, ticket }),
            _ => {}
        }
    }
}

fn machine(world: &mut World, node: &NodeId, what: &[&str]) -> Result<(), String> {
    let now = world.now;
    let Some(machine) = world.machines.get_mut(node) else { return Err(String::new()) };
    let mut gasp = None;
    match what {
        ["hangs"] => machine.life = Life::Mute,
        ["agent" | "service", "dies"] => machine.life = Life::Kernel,
        ["panics"] => gasp = Some(LastGasp::Panic),
        ["shuts", "down"] => gasp = Some(LastGasp::Shutdown),
        ["loses", "power"] => machine.lose_power(),
        ["loses", "power", "with", "its", "bmc"] => {
            machine.lose_power();
            machine.bmc = Bmc::Dead;
        }
        ["returns"] => {
            (machine.power, machine.life, machine.gasp) = (true, Life::Beats, None);
            let carried = world.truth.instances.values().find(|record| record.node == *node);
            machine.epoch = carried.map_or(machine.epoch, |record| record.epoch);
        }
        ["disk", "stalls"] => machine.disk_stalled = Some(now),
        ["disk", "recovers"] => machine.disk_stalled = None,
        ["second", "path", "is", "cut"] => machine.paths = vec![0],
        ["second", "path", "works"] => machine.paths = vec![0, 1],
        ["bmc", "dies"] => machine.bmc = Bmc::Dead,
        ["bmc", "recovers"] => machine.bmc = Bmc::Honest,
        ["bmc", "lies"] => machine.bmc = Bmc::Lies,
        ["will", "not", "boot"] => machine.boots = false,
        ["will", "boot"] => machine.boots = true,
        ["will", "not", "kexec"] => machine.kexecs = false,
        _ => return Err(variant(&what)),
    }
    if gasp.is_some() {
        machine.gasp = gasp;
        let beat = machine.heartbeat(now);
        world.beat(node, &beat);
        if let Some(machine) = world.machines.get_mut(node) {
            machine.life = Life::Mute;
        }
    }
    Ok(())
}
