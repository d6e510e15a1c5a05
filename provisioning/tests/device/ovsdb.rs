//! A switch's database (RFC 7047) as far as the provider uses it: two ports, `sw1/3` open and `sw1/4` parked.

use super::{Script, Seen};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct Database {
    ports: BTreeMap<String, Value>,
    next_cfg: i64,
    cur_cfg: i64,
    late: Option<(usize, String, Value)>,
}

pub(super) async fn serve(listener: TcpListener, script: Script, seen: Arc<Mutex<Seen>>) {
    let port = |tag: u16, protected: bool| {
        let ids = match script {
            Script::SeenToken(newest) => json!([["ha-token", newest.0.to_string()], ["owner", "somebody"]]),
            _ => json!([["owner", "somebody"]]),
        };
        json!({ "tag": tag, "trunks": ["set", []], "vlan_mode": "access", "protected": protected,
            "external_ids": ["map", ids], "interfaces": ["uuid", "5e2d851a-7b21-4434-b118-a064740af5a7"] })
    };
    let ports = [("sw1/3".to_owned(), port(7, false)), ("sw1/4".to_owned(), port(4000, true))].into();
    let database = Arc::new(Mutex::new(Database { ports, ..Database::default() }));
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(talk(stream, script, Arc::clone(&seen), Arc::clone(&database)));
    }
}

async fn talk(mut stream: TcpStream, script: Script, seen: Arc<Mutex<Seen>>, database: Arc<Mutex<Database>>) {
    let mut read = vec![];
    loop {
        let mut values = serde_json::Deserializer::from_slice(&read).into_iter::<Value>();
        let request = match values.next() {
            Some(Ok(request)) => request,
            _ => match stream.read_buf(&mut read).await {
                Ok(1..) => continue,
                Ok(0) | Err(_) => return,
            },
        };
        let used = values.byte_offset();
        read.drain(..used);
        let operations = request["params"].as_array().unwrap()[1..].to_vec();
        let changes = operations.iter().any(|operation| operation["op"] == "update");
        let looks = operations.iter().any(|operation| operation["table"] == "Port") && !changes;
        {
            let mut seen = seen.lock().unwrap();
            seen.changes += usize::from(changes);
            seen.looks += usize::from(looks);
        }
        match (script, changes, looks) {
            (Script::HangOnChange, true, _) | (Script::HangOnLook, _, true) => {
                return std::future::pending().await;
            }
            (Script::Garbage, ..) | (Script::Answer(500), true, _) => {
                stream.write_all(b"neither yes nor no").await.unwrap();
                continue;
            }
            (Script::Flood, ..) => {
                // It ends when the other side has had enough.
                while stream.write_all(&[b' '; 4096]).await.is_ok() {}
                return;
            }
            _ => {}
        }
        let result = database.lock().unwrap().transact(script, &operations);
        if let (Script::ObeyAndDropTheConnection, true) = (script, changes) {
            return;
        }
        // Servers ask whether we live, too.
        let echo = json!({ "method": "echo", "params": [], "id": "echo" });
        let answer = json!({ "result": result, "error": null, "id": request["id"] });
        if stream.write_all(format!("{echo}{answer}").as_bytes()).await.is_err() {
            return;
        }
    }
}

impl Database {
    fn transact(&mut self, script: Script, operations: &[Value]) -> Vec<Value> {
        let mut results = vec![];
        for operation in operations {
            let result = self.operate(script, operation);
            let failed = result.get("error").is_some();
            results.push(result);
            if failed {
                results.push(Value::Null);
                break;
            }
        }
        results
    }

    fn operate(&mut self, script: Script, operation: &Value) -> Value {
        let name = operation["where"][0][2].as_str().unwrap_or_default().to_owned();
        match (operation["op"].as_str().unwrap(), operation["table"].as_str().unwrap_or_default()) {
            ("select", "Port") => {
                self.grow_later();
                json!({ "rows": self.ports.get(&name).into_iter().collect::<Vec<_>>() })
            }
            ("select", "Interface") => json!({ "rows": [{ "name": "eth3", "link_state": "up" }] }),
            ("select", "Open_vSwitch") => {
                json!({ "rows": [{ "next_cfg": self.next_cfg, "cur_cfg": self.cur_cfg }] })
            }
            ("wait", "Port") => {
                let expected = &operation["rows"][0]["external_ids"];
                match (script, self.ports.get(&name)) {
                    (Script::Answer(403), _) => json!({ "error": "permission error" }),
                    (Script::ChangedMeanwhile, _) => json!({ "error": "timed out" }),
                    (_, Some(port)) if port["external_ids"] == *expected => json!({}),
                    (_, _) => json!({ "error": "timed out" }),
                }
            }
            ("update", "Port") => {
                let row = operation["row"].clone();
                match script {
                    Script::Lie => {}
                    Script::ObeyAfterLooks(looks) => self.late = Some((looks, name, row)),
                    _ => self.set(&name, &row),
                }
                json!({ "count": 1 })
            }
            ("mutate", "Open_vSwitch") => {
                self.next_cfg += 1;
                if !matches!(script, Script::NeverApply) {
                    self.cur_cfg = self.next_cfg;
                }
                json!({ "count": 1 })
            }
            ("comment", _) => json!({}),
            other => panic!("{other:?}"),
        }
    }

    fn set(&mut self, name: &str, row: &Value) {
        let port = self.ports.get_mut(name).unwrap();
        assert!(row["external_ids"].to_string().contains("somebody"), "keys of others stay");
        for (column, value) in row.as_object().unwrap() {
            port[column] = value.clone();
        }
    }

    fn grow_later(&mut self) {
        match self.late.take() {
            Some((0, name, row)) => self.set(&name, &row),
            Some((looks, name, row)) => self.late = Some((looks - 1, name, row)),
            None => {}
        }
    }
}
