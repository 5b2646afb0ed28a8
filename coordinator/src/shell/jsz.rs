//! What a monitoring URL says of streams and durables, for credentials that may not use the JetStream API.

use std::time::Duration;

use serde::Deserialize;

use super::monitor::{ConsumerInfo, StreamInfo};
use crate::core::backlog::DurableName;

/// The answer of `/jsz?consumers=true&config=true`, as far as it is read.
#[derive(Debug, Default, Deserialize)]
pub struct Jsz {
    #[serde(default)]
    account_details: Vec<Account>,
    /// The server's own count, which only this page has; `None` where JetStream is disabled.
    streams: Option<u64>,
    #[serde(default)]
    disabled: bool,
    /// In a cluster a server knows only of the streams that it has itself.
    meta_cluster: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Account {
    #[serde(default)]
    name: String,
    #[serde(default)]
    stream_detail: Vec<Stream>,
}

#[derive(Debug, Deserialize)]
struct Stream {
    name: String,
    #[serde(flatten)]
    info: StreamInfo,
    #[serde(default)]
    consumer_detail: Vec<ConsumerInfo>,
}

/// More than a server with ten thousand consumers answers.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// Asks the URL; blocks the thread.
///
/// # Errors
/// No answer in time, or none that can be read; for people.
pub fn fetch(url: &str, within: Duration) -> Result<Jsz, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(within)).build().into();
    let separator = if url.contains('?') { '&' } else { '?' };
    let answer = agent.get(format!("{url}{separator}consumers=true&config=true")).call();
    let mut answer = answer.map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(MOST_BYTES).read_to_vec().map_err(|error| error.to_string())?;
    parse(&body)
}

/// Reads an answer.
///
/// # Errors
/// It is none of /jsz; for people.
pub fn parse(body: &[u8]) -> Result<Jsz, String> {
    let jsz: Jsz = serde_json::from_slice(body).map_err(|error| format!("no answer of /jsz: {error}"))?;
    match jsz {
        Jsz { disabled: true, .. } => Err("the server's JetStream is disabled".to_owned()),
        Jsz { streams: None, .. } => {
            Err("no answer of /jsz: another page answered; the URL is to end in /jsz, as in http://chat:8222/jsz"
                .to_owned())
        }
        jsz => Ok(jsz),
    }
}

impl Jsz {
    /// A stream; `None` where the server has none of this name.
    ///
    /// # Errors
    /// Several accounts have one, or another server may have it; for people.
    pub fn stream(&self, name: &str) -> Result<Option<StreamInfo>, String> {
        Ok(self.find(name)?.map(|stream| stream.info.clone()))
    }

    /// A durable; `None` where the server has none of this name.
    ///
    /// # Errors
    /// Several accounts have its stream, or another server has it or leads it, which alone knows what is pending: a follower of
    /// nats-server 2.15 says 0 or what was so long ago. For people.
    pub fn consumer(&self, durable: &DurableName) -> Result<Option<ConsumerInfo>, String> {
        let Some(stream) = self.find(&durable.stream)? else { return Ok(None) };
        let DurableName { stream: of, durable } = durable;
        let Some(found) = stream.consumer_detail.iter().find(|consumer| consumer.name == *durable) else {
            return self.elsewhere(&format!("the durable {durable} of {of}"));
        };
        match found.cluster.as_ref().and_then(|group| group.led_by_another()) {
            None => Ok(Some(found.clone())),
            Some("") => Err(format!("no server leads the durable {durable} of {of}: what is pending is not known")),
            Some(leader) => Err(format!(
                "this server does not know what is pending for the durable {durable} of {of}: {leader} leads it; \
                 name that server in --jsz-url, or allow the JetStream API, which any server answers"
            )),
        }
    }

    /// What this server has not is nowhere, unless there are others.
    fn elsewhere<T>(&self, what: &str) -> Result<Option<T>, String> {
        match self.meta_cluster {
            None => Ok(None),
            Some(_) => Err(format!(
                "this server of a cluster has not {what}, another may have it: \
                 name that server in --jsz-url, or allow the JetStream API, which any server answers"
            )),
        }
    }

    fn find(&self, name: &str) -> Result<Option<&Stream>, String> {
        let of_account = |account: &'_ Account| account.stream_detail.iter().position(|stream| stream.name == name);
        let found: Vec<(&Account, usize)> =
            self.account_details.iter().filter_map(|account| Some((account, of_account(account)?))).collect();
        match found.as_slice() {
            [] => self.elsewhere(&format!("the stream {name}")),
            [(account, index)] => Ok(Some(&account.stream_detail[*index])),
            several => {
                let names: Vec<&str> = several.iter().map(|(account, _)| account.name.as_str()).collect();
                Err(format!(
                    "the accounts {} all have a stream {name}: name one in the URL, as in /jsz?acc={}",
                    names.join(", "),
                    names[0]
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"server_id":"N","streams":2,"consumers":1,"account_details":[
        {"name":"$G","id":"$G","stream_detail":[
          {"name":"MESSAGES","created":"2026-01-01T00:00:00Z","state":{"messages":5,"bytes":500,"first_seq":1,"last_seq":7},
           "config":{"name":"MESSAGES","storage":"file","num_replicas":1,"max_age":0,"max_bytes":-1},
           "consumer_detail":[{"stream_name":"MESSAGES","name":"worker","created":"2026-01-01T00:00:01Z",
             "num_ack_pending":3,"num_pending":4,"config":{"max_ack_pending":1000}}]},
          {"name":"OTHER","state":{"last_seq":0}}]},
        {"name":"B","stream_detail":[{"name":"OTHER","state":{"last_seq":1}}]}]}"#;

    fn durable(stream: &str, durable: &str) -> DurableName {
        DurableName { stream: stream.into(), durable: durable.into() }
    }

    #[test]
    fn durables_and_streams_are_found_by_both_their_names() {
        let jsz = parse(ANSWER.as_bytes()).unwrap();
        let worker = jsz.consumer(&durable("MESSAGES", "worker")).unwrap().unwrap();
        assert_eq!(
            (worker.num_pending, worker.num_ack_pending, worker.created.as_str()),
            (4, 3, "2026-01-01T00:00:01Z")
        );
        assert_eq!(jsz.stream("MESSAGES").unwrap().unwrap().state.last_seq, 7);
        assert!(jsz.consumer(&durable("MESSAGES", "other")).unwrap().is_none());
        assert!(jsz.consumer(&durable("NONE", "worker")).unwrap().is_none());
    }

    #[test]
    fn a_stream_of_several_accounts_is_refused_with_the_way_out() {
        let words = parse(ANSWER.as_bytes()).unwrap().stream("OTHER").map(drop).unwrap_err();
        assert_eq!(words, "the accounts $G, B all have a stream OTHER: name one in the URL, as in /jsz?acc=$G");
    }

    /// As three servers of nats-server 2.15 answer about 500 messages that nobody has taken.
    fn of_cluster(leader: &str, replicas: &str, pending: u64) -> Jsz {
        let group = format!(r#""cluster":{{"name":"c","leader":"{leader}"{replicas}}}"#);
        let durable = format!(r#"{{"name":"worker","num_pending":{pending},{group}}}"#);
        let stream =
            format!(r#"{{"name":"MESSAGES",{group},"state":{{"last_seq":500}},"consumer_detail":[{durable}]}}"#);
        let page = format!(
            r#"{{"streams":1,"meta_cluster":{{"name":"c","leader":"nats-3"}},"account_details":[{{"name":"$G","stream_detail":[{stream}]}}]}}"#
        );
        parse(page.as_bytes()).unwrap()
    }

    #[test]
    fn only_the_server_that_leads_a_durable_is_believed() {
        let of = |names: [&str; 2]| format!(r#","replicas":[{{"name":"{}"}},{{"name":"{}"}}]"#, names[0], names[1]);
        let worker = durable("MESSAGES", "worker");
        let leads = of_cluster("nats-3", &of(["nats-1", "nats-2"]), 500);
        assert_eq!(leads.consumer(&worker).unwrap().unwrap().num_pending, 500);
        // Of one replica, none are named.
        assert_eq!(of_cluster("nats-3", "", 500).consumer(&worker).unwrap().unwrap().num_pending, 500);
        let follows = of_cluster("nats-3", &of(["nats-2", "nats-3"]), 0);
        assert!(follows.consumer(&worker).unwrap_err().contains(": nats-3 leads it; name that server in --jsz-url"));
        assert_eq!(follows.stream("MESSAGES").unwrap().unwrap().state.last_seq, 500, "all have its messages");
        let electing = of_cluster("", &of(["nats-2", "nats-3"]), 0);
        assert!(electing.consumer(&worker).unwrap_err().starts_with("no server leads the durable worker of MESSAGES"));
        // What this server has not is not gone.
        for missing in [durable("MESSAGES", "other"), durable("NONE", "worker")] {
            assert!(leads.consumer(&missing).unwrap_err().contains("another may have it"));
        }
        assert!(leads.stream("NONE").map(drop).unwrap_err().contains("has not the stream NONE"));
    }

    #[test]
    fn another_page_is_no_answer_and_a_server_without_streams_is_an_empty_one() {
        for page in [&b"<html>"[..], br#"{"server_id":"N","version":"2.10.0","connections":3}"#, b"{}"] {
            assert!(parse(page).unwrap_err().starts_with("no answer of /jsz: "));
        }
        assert!(parse(br#"{"streams":0,"consumers":0}"#).unwrap().stream("MESSAGES").unwrap().is_none());
        assert_eq!(parse(b"{\"disabled\":true}").unwrap_err(), "the server's JetStream is disabled");
    }
}
