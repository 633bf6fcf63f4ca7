//! How an instance is written down in etcd, by whose readers are to find it.
//!
//! Each layout is one family's convention, byte for byte, so that its clients need no change:
//! etcd's own gRPC naming (`go.etcd.io/etcd/client/v3/naming`), go-zero's zrpc, Kratos' and
//! Kitex' etcd registries.

use std::{net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::discovery::{Announcement, Attributes, Endpoint, Layout};

/// Where Kratos keeps everything.
const KRATOS: &str = "/microservices";
/// Where Kitex keeps everything.
const KITEX: &str = "kitex/registry-etcd";
/// An ordinary endpoint's weight, in our own and in Kratos' scale.
const WEIGHT: u32 = 100;
/// The same in Kitex' scale.
const WEIGHT_KITEX: u32 = 10;

/// A value of etcd's gRPC naming, as its Go client writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Naming {
    #[serde(default)]
    op: u8,
    addr: String,
    #[serde(default)]
    metadata: Value,
}

/// What we put into a naming value's metadata.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Metadata {
    instance: Option<Arc<str>>,
    version: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    weight: Option<u32>,
    start_time: Option<u64>,
    services: Vec<Arc<str>>,
    /// It takes no new calls any more.
    draining: bool,
}

#[derive(Serialize, Deserialize)]
struct Kratos {
    id: String,
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    metadata: Option<serde_json::Map<String, Value>>,
    #[serde(default)]
    endpoints: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Kitex {
    network: String,
    address: String,
    #[serde(default)]
    weight: i64,
    #[serde(default)]
    tags: Option<serde_json::Map<String, Value>>,
}

/// Why a value cannot be used; the entry alone is passed over.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It is not of the layout's form.
    #[error("not of the layout's form")]
    Form(#[from] serde_json::Error),
    /// It is not text.
    #[error("not text")]
    Text(#[from] std::str::Utf8Error),
    /// Its address is a name, or nothing.
    #[error("`{0}` is not IP:PORT")]
    Address(String),
}

impl Layout {
    /// What the keys of all instances of `name` begin with.
    #[must_use]
    pub fn prefix(self, name: &str) -> String {
        match self {
            Self::Etcd | Self::GoZero => format!("{name}/"),
            Self::Kratos => format!("{KRATOS}/{name}/"),
            Self::Kitex => format!("{KITEX}/{name}/"),
        }
    }

    /// The key and value of `it`. The key stays the same for the life of the process, so that a
    /// registration that is made again replaces the one before.
    #[must_use]
    pub fn encode(self, it: &Announcement) -> (String, String) {
        let Announcement {
            name,
            address,
            instance,
            ..
        } = it;
        match self {
            Self::Etcd => (self.prefix(name) + address, naming(it)),
            // Under a name of its own: readers of etcd's naming would take the text for JSON.
            Self::GoZero => {
                let key = self.prefix(&format!("{name}.rpc")) + instance;
                (key, address.clone())
            }
            Self::Kratos => (self.prefix(name) + instance, kratos(it)),
            Self::Kitex => (self.prefix(name) + address, kitex(it)),
        }
    }

    /// The endpoint that `value` stands for; none where it is not to be called: it drains, or it
    /// belongs to another name or speaks another protocol.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn decode(self, name: &str, value: &[u8]) -> Result<Option<Endpoint>, Malformed> {
        match self {
            Self::Etcd => {
                let naming: Naming = serde_json::from_slice(value)?;
                let metadata = metadata(naming.metadata);
                if naming.op != 0 || metadata.draining {
                    return Ok(None);
                }
                let attributes = Attributes {
                    instance: metadata.instance,
                    version: metadata.version,
                    zone: metadata.zone,
                    weight_percent: metadata.weight,
                    held: false,
                };
                Ok(Some(endpoint(&naming.addr, attributes)?))
            }
            Self::GoZero => {
                let text = std::str::from_utf8(value)?;
                Ok(Some(endpoint(text, Attributes::default())?))
            }
            Self::Kratos => from_kratos(name, &serde_json::from_slice(value)?),
            Self::Kitex => {
                let kitex: Kitex = serde_json::from_slice(value)?;
                let weight = u32::try_from(kitex.weight).ok().filter(|it| *it > 0);
                let attributes = Attributes {
                    weight_percent: weight.map(|it| it.saturating_mul(WEIGHT / WEIGHT_KITEX)),
                    ..Attributes::default()
                };
                Ok(Some(endpoint(&kitex.address, attributes)?))
            }
        }
    }
}

/// The services that an instance serves, by a value of etcd's own layout; none where it does not say
/// so, or is not to be called.
pub(super) fn services(value: &[u8]) -> Vec<Arc<str>> {
    let naming = serde_json::from_slice::<Naming>(value).ok();
    let naming = naming.filter(|naming| naming.op == 0);
    let metadata = naming.map(|naming| metadata(naming.metadata));
    metadata
        .filter(|metadata| !metadata.draining)
        .map(|metadata| metadata.services)
        .unwrap_or_default()
}

fn naming(it: &Announcement) -> String {
    let metadata = Metadata {
        instance: Some(it.instance.as_str().into()),
        version: Some(it.version.as_str().into()),
        zone: it.zone.as_deref().map(Into::into),
        weight: Some(it.weight_percent),
        start_time: Some(it.start_time),
        services: it.services.iter().map(|it| it.as_str().into()).collect(),
        draining: false,
    };
    to_json(&Naming {
        op: 0,
        addr: it.address.clone(),
        metadata: serde_json::to_value(metadata).expect("plain fields have a form in JSON"),
    })
}

/// Metadata is any JSON: an object, text that holds JSON (as etcd's own proxy writes), or null.
/// What is not ours says nothing.
fn metadata(value: Value) -> Metadata {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).unwrap_or_default(),
        other => other,
    };
    serde_json::from_value(value).unwrap_or_default()
}

fn kratos(it: &Announcement) -> String {
    let mut metadata = serde_json::Map::new();
    metadata.insert("weight".to_owned(), it.weight_percent.to_string().into());
    if let Some(zone) = &it.zone {
        metadata.insert("zone".to_owned(), zone.clone().into());
    }
    let scheme = if it.tls { "grpcs" } else { "grpc" };
    to_json(&Kratos {
        id: it.instance.clone(),
        name: it.name.clone(),
        version: it.version.clone(),
        metadata: Some(metadata),
        endpoints: vec![format!("{scheme}://{}", it.address)],
    })
}

fn from_kratos(name: &str, kratos: &Kratos) -> Result<Option<Endpoint>, Malformed> {
    let grpc = kratos.endpoints.iter().find_map(|url| {
        let rest = url
            .strip_prefix("grpc://")
            .or_else(|| url.strip_prefix("grpcs://"))?;
        Some(rest.split('?').next().unwrap_or(rest))
    });
    let Some(address) = grpc.filter(|_| kratos.name == name) else {
        return Ok(None);
    };
    let text = |key: &str| kratos.metadata.as_ref()?.get(key)?.as_str();
    let attributes = Attributes {
        instance: Some(kratos.id.as_str().into()),
        version: Some(kratos.version.as_str().into()).filter(|it: &Arc<str>| !it.is_empty()),
        zone: text("zone").map(Into::into),
        weight_percent: text("weight").and_then(|text| text.parse().ok()),
        held: false,
    };
    Ok(Some(endpoint(address, attributes)?))
}

fn kitex(it: &Announcement) -> String {
    let weight = it.weight_percent.saturating_mul(WEIGHT_KITEX) / WEIGHT;
    to_json(&Kitex {
        network: "tcp".to_owned(),
        address: it.address.clone(),
        weight: weight.max(1).into(),
        tags: None,
    })
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("text and numbers have a form in JSON")
}

fn endpoint(address: &str, attributes: Attributes) -> Result<Endpoint, Malformed> {
    let addr: SocketAddr = address
        .trim()
        .parse()
        .map_err(|_| Malformed::Address(address.chars().take(64).collect()))?;
    Ok(Endpoint { addr, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            name: "orders".into(),
            address: "10.0.0.1:50051".into(),
            instance: "00ff".into(),
            version: "1.2.3".into(),
            zone: Some("a".into()),
            weight_percent: 50,
            start_time: 1_700_000_000,
            services: vec!["shop.orders.v1.OrdersService".into()],
            tls: false,
        }
    }

    /// Goal: keys and values are what the readers of each family expect, to the byte.
    /// Method: one instance in all four layouts.
    #[test]
    fn each_family_finds_what_it_reads() {
        let it = announcement();
        let (key, value) = Layout::Etcd.encode(&it);
        assert_eq!("orders/10.0.0.1:50051", key);
        let value: Value = serde_json::from_str(&value).unwrap();
        assert_eq!(0, value["Op"]);
        assert_eq!("10.0.0.1:50051", value["Addr"]);
        assert_eq!("00ff", value["Metadata"]["instance"]);
        assert_eq!(1_700_000_000, value["Metadata"]["start_time"]);

        let go_zero = Layout::GoZero.encode(&it);
        assert_eq!(
            ("orders.rpc/00ff", "10.0.0.1:50051"),
            (&*go_zero.0, &*go_zero.1)
        );

        let (key, value) = Layout::Kratos.encode(&it);
        assert_eq!("/microservices/orders/00ff", key);
        assert_eq!(
            r#"{"id":"00ff","name":"orders","version":"1.2.3","metadata":{"weight":"50","zone":"a"},"endpoints":["grpc://10.0.0.1:50051"]}"#,
            value
        );

        let (key, value) = Layout::Kitex.encode(&it);
        assert_eq!("kitex/registry-etcd/orders/10.0.0.1:50051", key);
        assert_eq!(
            r#"{"network":"tcp","address":"10.0.0.1:50051","weight":5,"tags":null}"#,
            value
        );
    }

    /// Goal: what is written in any layout is read back, with what it can carry.
    /// Method: encode, decode.
    #[test]
    fn what_is_written_is_read() {
        let it = announcement();
        for layout in Layout::ALL {
            let (_, value) = layout.encode(&it);
            let read = layout.decode("orders", value.as_bytes()).unwrap().unwrap();
            assert_eq!("10.0.0.1:50051", read.addr.to_string(), "{layout}");
            let weight = (layout != Layout::GoZero).then_some(50);
            assert_eq!(weight, read.attributes.weight_percent, "{layout}");
        }
    }

    /// Goal: what others write is read as they mean it, and nothing can break the list.
    /// Method: values as other programs write them, and garbage.
    #[test]
    fn foreign_values_are_understood_or_passed_over() {
        let read = |layout: Layout, value: &str| layout.decode("user", value.as_bytes());
        let found = |layout, value| matches!(read(layout, value), Ok(Some(_)));
        assert!(found(
            Layout::Etcd,
            r#"{"Op":0,"Addr":"1.2.3.4:5","Metadata":null}"#
        ));
        assert!(found(Layout::Etcd, r#"{"Addr":"[::1]:5"}"#));
        let text = r#"{"Op":0,"Addr":"1.2.3.4:5","Metadata":"{\"zone\":\"b\"}"}"#;
        let endpoint = read(Layout::Etcd, text).unwrap().unwrap();
        assert_eq!(Some("b"), endpoint.attributes.zone.as_deref());

        let draining = r#"{"Op":0,"Addr":"1.2.3.4:5","Metadata":{"draining":true}}"#;
        assert!(matches!(read(Layout::Etcd, draining), Ok(None)));
        let other = r#"{"id":"1","name":"user2","endpoints":["grpc://1.2.3.4:5"]}"#;
        assert!(matches!(read(Layout::Kratos, other), Ok(None)));
        let http = r#"{"id":"1","name":"user","endpoints":["http://1.2.3.4:5"]}"#;
        assert!(matches!(read(Layout::Kratos, http), Ok(None)));
        let both = r#"{"id":"1","name":"user","metadata":null,"endpoints":["http://1.2.3.4:5","grpc://1.2.3.4:6?isSecure=false"]}"#;
        let endpoint = read(Layout::Kratos, both).unwrap().unwrap();
        assert_eq!(6, endpoint.addr.port());

        for garbage in ["", "{", "null", "\u{0}", r#"{"Addr":7}"#, "host:1"] {
            for layout in Layout::ALL {
                assert!(!found(layout, garbage), "{layout} {garbage}");
            }
        }
        assert!(Layout::GoZero.decode("user", &[0xff, 0xfe]).is_err());
    }
}
