//! The form of requests and replies on the socket: a line of JSON each.
//!
//! A request is `{"api":1,"command":"wait_served","container":"ID"}`. The reply is `{"ok":...}`, with what [`Call::Reply`] says, or
//! `{"error":{"message":"...","status":1}}`. A request without `api` is taken for one of the daemon's own version, so that it can
//! be typed by hand.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Call, Refusal, Request};

/// The version of what is said here. New requests, and new fields in replies, leave it as it is: a client does not look at what it
/// does not know. It grows where an older client would take something for what it is not.
pub const VERSION: u64 = 1;

/// How much of a request that cannot be understood is quoted, in characters.
const QUOTED: usize = 200;

/// What the daemon answers to a request, before it is known which.
pub type Answer = Result<Value, Refusal>;

/// The line of a request, with its end.
///
/// # Errors
/// None of a request that this crate makes.
pub fn request_line(request: &Request) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        api: u64,
        #[serde(flatten)]
        request: &'a Request,
    }
    Ok(format!("{}\n", serde_json::to_string(&Line { api: VERSION, request })?))
}

/// Reads the line of a request.
///
/// # Errors
/// Bad input, quoted; and another version, with what to do about it.
pub fn read_request(line: &[u8]) -> Result<Request, Refusal> {
    let read = || {
        let mut value: Value = serde_json::from_slice(line)?;
        let api = value.as_object_mut().and_then(|fields| fields.remove("api"));
        Ok((api, value))
    };
    let not_understood = |e: serde_json::Error| {
        let text = String::from_utf8_lossy(line);
        let quoted: String = text.trim_end().chars().take(QUOTED).collect();
        Refusal::usage(format!("the daemon does not understand {quoted:?}: {e}"))
    };
    let (api, value) = read().map_err(not_understood)?;
    if let Some(api) = api
        && api != VERSION
    {
        return Err(Refusal::failed(format!(
            "the command speaks version {api} of the daemon's language, and this daemon version {VERSION}: use the command that the \
             daemon was started with, or start the daemon anew with this one"
        )));
    }
    Request::deserialize(value).map_err(not_understood)
}

/// The line of a reply, with its end.
pub fn answer_line(answer: Answer) -> String {
    let value = match answer {
        Ok(value) => serde_json::json!({"ok": value}),
        Err(refusal) => serde_json::json!({"error": refusal}),
    };
    format!("{value}\n")
}

/// Reads the line of a reply to a certain request.
///
/// # Errors
/// Where it is none; the daemon's refusal is what the inner result has.
pub fn read_answer<C: Call>(line: &str) -> serde_json::Result<Result<C::Reply, Refusal>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Line<R> {
        Ok(R),
        Error(Refusal),
    }
    Ok(match serde_json::from_str(line)? {
        Line::Ok(reply) => Ok(reply),
        Line::Error(refusal) => Err(refusal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Down, Link, Ping, Pong, Publish, WaitServed};

    #[test]
    fn every_request_is_read_as_it_was_written() {
        let container = || "web".to_owned();
        let requests: [Request; 8] = [
            Ping.into(),
            crate::Status.into(),
            crate::Links.into(),
            Down.into(),
            WaitServed { container: container() }.into(),
            Publish { container: container(), spec: "80".to_owned(), filter: Default::default() }.into(),
            crate::Unlink { recipient: container(), target: "db".to_owned() }.into(),
            Link { recipient: container(), source: "db".to_owned(), alias: "a".to_owned(), all_ports: true }.into(),
        ];
        for request in requests {
            let line = request_line(&request).unwrap();
            assert!(line.ends_with("}\n") && line.starts_with("{\"api\":1,\"command\":\""), "{line}");
            assert_eq!(read_request(line.as_bytes()).unwrap(), request, "{line}");
        }
    }

    #[test]
    fn a_request_that_was_typed() {
        let read = read_request(br#"{"command":"publish","container":"web","spec":"80"}"#).unwrap();
        let filter = Default::default();
        assert_eq!(read, Publish { container: "web".to_owned(), spec: "80".to_owned(), filter }.into());
    }

    #[test]
    fn what_is_not_understood_is_quoted() {
        for line in [
            "",
            "{}",
            "[[[",
            "{\"command\":\"fly\"}",
            "{\"command\":\"prepare\",\"container\":\"a\",\"more\":1}",
            "\"ping\"",
        ] {
            let refusal = read_request(line.as_bytes()).unwrap_err();
            assert!(refusal.message.starts_with("the daemon does not understand \""), "{refusal}");
            assert_eq!(refusal.status, 2);
        }
        let long = format!("{{\"command\":\"{}\"}}", "x".repeat(1000));
        assert!(read_request(long.as_bytes()).unwrap_err().message.contains(&format!("{}\": ", "x".repeat(188))));
    }

    #[test]
    fn another_version_is_told_what_to_do() {
        let refusal = read_request(br#"{"api":2,"command":"fly"}"#).unwrap_err();
        assert_eq!(refusal.status, 1);
        assert!(refusal.message.contains("version 2") && refusal.message.contains("version 1"), "{refusal}");
        assert_eq!(read_request(br#"{"api":1,"command":"ping"}"#), Ok(Request::Ping));
    }

    #[test]
    fn replies() {
        assert_eq!(answer_line(Ok(serde_json::json!({"pid": 7}))), "{\"ok\":{\"pid\":7}}\n");
        assert_eq!(read_answer::<Ping>("{\"ok\":{\"pid\":7,\"more\":1}}\n").unwrap(), Ok(Pong { pid: 7 }));
        let refusal = Refusal::usage("no");
        let line = answer_line(Err(refusal.clone()));
        assert_eq!(line, "{\"error\":{\"message\":\"no\",\"status\":2}}\n");
        assert_eq!(read_answer::<Ping>(&line).unwrap(), Err(refusal));
        assert_eq!(read_answer::<Ping>("{\"error\":{\"message\":\"no\"}}").unwrap().unwrap_err().status, 1);
        assert_eq!(read_answer::<Down>("{\"ok\":null}").unwrap(), Ok(()));
        assert!(read_answer::<Ping>("{}").is_err());
    }
}
