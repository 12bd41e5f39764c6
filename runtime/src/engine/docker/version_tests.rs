//! What Engines answered to `/version`, and one that grows old and new between requests.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::version::{ApiVersion, Range};
use super::{DockerEngine, Engine, Product};

const DOCKER_20: &str = include_str!("../fixtures/version_docker_20.10.json");
const DOCKER_26: &str = include_str!("../fixtures/version_docker_26.1.json");
const DOCKER_28: &str = include_str!("../fixtures/version_docker_28.5.json");
/// Not recorded: after the API's documentation.
const DOCKER_29: &str = include_str!("../fixtures/version_docker_29.json");
const PODMAN: &str = include_str!("../fixtures/version_podman_5.8.json");

fn range(answer: &str) -> Range {
    Range::of(&serde_json::from_str(answer).unwrap(), "unix:///e.sock").unwrap()
}

#[test]
fn each_engine_is_spoken_to_in_a_version_of_its_own() {
    for (answer, product, spoken) in [
        (DOCKER_20, Product::Docker, ApiVersion(1, 41)),
        (DOCKER_26, Product::Docker, ApiVersion(1, 45)),
        (DOCKER_28, Product::Docker, ApiVersion(1, 51)),
        (DOCKER_29, Product::Docker, ApiVersion(1, 52)),
        (PODMAN, Product::Podman, ApiVersion(1, 44)),
    ] {
        assert_eq!(range(answer).choose(None, "e").unwrap(), spoken, "{answer}");
        assert_eq!(Product::of(&serde_json::from_str(answer).unwrap()), product);
    }
}

#[test]
fn the_users_version_is_taken_within_what_both_speak() {
    for (answer, wish, spoken) in [
        (DOCKER_28, "1.44", Some(ApiVersion(1, 44))),
        (DOCKER_28, "v1.44", Some(ApiVersion(1, 44))),
        (DOCKER_28, "", Some(ApiVersion(1, 51))),
        (DOCKER_28, "1.52", None),
        (DOCKER_28, "1.24", None),
        (DOCKER_29, "1.44", Some(ApiVersion(1, 44))),
        (DOCKER_29, "1.43", None),
        (DOCKER_20, "28.5.2", None),
        (DOCKER_20, "1", None),
    ] {
        let chosen = range(answer).choose(Some(wish), "unix:///e.sock");
        let Some(spoken) = spoken else {
            let error = chosen.expect_err(wish).to_string();
            assert!(error.contains(&format!("\"{wish}\"")) && error.contains("unix:///e.sock"), "{error}");
            assert!(error.contains(&format!("to {}", range(answer).newest)), "{error}");
            continue;
        };
        assert_eq!(chosen.unwrap(), spoken, "{wish}");
    }
}

#[test]
fn what_has_no_version_in_common_is_refused_with_the_remedy() {
    let refused = |newest: &str, oldest: &str| {
        let answer = format!("{{\"ApiVersion\":\"{newest}\",\"MinAPIVersion\":\"{oldest}\"}}");
        range(&answer).choose(None, "e").expect_err("taken").to_string()
    };
    let old = refused("1.40", "1.12");
    assert!(old.contains("1.12 to 1.40") && old.contains("upgrade the engine"), "{old}");
    let new = refused("2.7", "2.0");
    assert!(new.contains("2.0 to 2.7") && new.contains("upgrade runtime"), "{new}");
}

#[test]
fn an_engines_own_words_are_no_version_of_the_api() {
    for words in ["5.8.6", "28.5.2+dfsg4", "1.41-vendor", "1", "v1.41", "+1.41", "1.", ""] {
        assert!(words.parse::<ApiVersion>().is_err(), "{words}");
        let answer = format!("{{\"Version\":\"1.44\",\"ApiVersion\":\"{words}\"}}");
        let error = Range::of(&serde_json::from_str(&answer).unwrap(), "unix:///e.sock").expect_err(words).to_string();
        assert!(error.contains("unix:///e.sock") && error.contains("--docker-host"), "{error}");
    }
    assert_eq!("1.41".parse(), Ok(ApiVersion(1, 41)));
}

#[test]
fn link_variables_go_by_what_the_engine_is_not_by_what_is_spoken() {
    let writes = |answer: &str| range(answer).newest < ApiVersion::NO_LINK_ENVIRONMENT;
    assert!(writes(DOCKER_20) && writes(DOCKER_26) && writes(DOCKER_28));
    assert!(!writes(DOCKER_29));
}

/// Answers `/version` with what it has at the moment, everything else with an empty list; notes the paths.
struct FakeEngine {
    answer: Mutex<&'static str>,
    paths: Mutex<Vec<String>>,
}

async fn serve(engine: Arc<FakeEngine>, listener: UnixListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { break };
            head.push(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let body = if path.ends_with("/version") { *engine.answer.lock().unwrap() } else { "[]" };
        engine.paths.lock().unwrap().push(path);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        // A client that has gone away needs no answer.
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test]
async fn every_request_names_the_version_and_an_engine_that_was_replaced_is_asked_again() {
    let socket = std::env::temp_dir().join(format!("runtime-version-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&socket).unwrap();
    let fake = Arc::new(FakeEngine { answer: Mutex::new(DOCKER_20), paths: Mutex::default() });
    let server = tokio::spawn(serve(fake.clone(), listener));
    let address = format!("unix://{}", socket.display());
    let engine = DockerEngine::connect_in(Some(&address), None).await.unwrap();
    assert_eq!(engine.api_version(), ApiVersion(1, 41));
    engine.snapshot().await.unwrap();
    let paths = std::mem::take(&mut *fake.paths.lock().unwrap());
    let (first, others) = paths.split_first().unwrap();
    assert_eq!(first, "/version");
    assert!(!others.is_empty() && others.iter().all(|p| p.starts_with("/v1.41/")), "{others:?}");

    *fake.answer.lock().unwrap() = DOCKER_29;
    drop(engine.events().await.unwrap());
    engine.snapshot().await.unwrap();
    assert_eq!(engine.api_version(), ApiVersion(1, 52));
    let paths = std::mem::take(&mut *fake.paths.lock().unwrap());
    let (first, others) = paths.split_first().unwrap();
    assert_eq!(first, "/version");
    assert!(others[0].starts_with("/v1.52/events?") && others.iter().all(|p| p.starts_with("/v1.52/")), "{others:?}");

    let wished = DockerEngine::connect_in(Some(&address), Some("1.44")).await.unwrap();
    wished.snapshot().await.unwrap();
    let paths = std::mem::take(&mut *fake.paths.lock().unwrap());
    assert!(paths[1..].iter().all(|p| p.starts_with("/v1.44/")), "{paths:?}");
    let refused = DockerEngine::connect_in(Some(&address), Some("1.43")).await.unwrap_err().to_string();
    assert!(refused.contains("DOCKER_API_VERSION") && refused.contains("1.44 to 1.52"), "{refused}");
    server.abort();
    std::fs::remove_file(socket).unwrap();
}
