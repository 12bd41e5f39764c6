//! `run`'s arguments, as they are typed.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Run {
    #[command(flatten)]
    args: RunArgs,
}

/// Nothing but what the flags say.
pub(in super::super) const NO_ENV: &[&str] = &[];

/// Parses the arguments of a `run`; `env` is what its environment has to be then.
pub(in super::super) fn request(arguments: &[&str], env: &[&str]) -> Result<Request, Failure> {
    let run = Run::try_parse_from(std::iter::once("run").chain(arguments.iter().copied())).expect("clap refuses");
    let request = Request::parse(run.args)?;
    assert_eq!(request.env, env);
    Ok(request)
}

fn refusal(arguments: &[&str]) -> String {
    let failure = request(arguments, NO_ENV).expect_err("taken");
    assert_eq!(failure.status(), 2, "{failure:?}");
    failure.message().unwrap()
}

#[test]
fn everything_after_the_image_is_the_command() {
    let request = request(&["-it", "--rm", "-e", "A=1", "box", "ls", "-d", "--rm", "-p", "x"], &["A=1"]).unwrap();
    assert!(request.interactive && request.tty && request.rm && !request.detach);
    assert_eq!(
        (request.image.as_str(), &request.command[..]),
        ("box", &["ls", "-d", "--rm", "-p", "x"].map(String::from)[..])
    );
}

#[test]
fn short_and_joined_flags() {
    let request = request(
        &["-dP", "-hhost", "-p8080:80", "-lk=v", "-l", "bare", "-u", "1:2", "-w/srv", "--net=app", "x"],
        NO_ENV,
    )
    .unwrap();
    assert!(request.detach && request.publish_all);
    assert_eq!(request.hostname.as_deref(), Some("host"));
    assert_eq!(request.publications.len(), 1);
    assert_eq!(request.labels["k"], "v");
    assert_eq!(request.labels["bare"], "");
    assert_eq!((request.user.as_deref(), request.workdir.as_deref()), (Some("1:2"), Some("/srv")));
    assert_eq!(request.network, NetworkMode::Custom("app".into()));
}

#[test]
fn volumes() {
    let request = request(&["-v", "/data", "-v", "vol:/a:ro", "-v", "/b:/b", "-v", "./c:/c:ro", "x"], NO_ENV).unwrap();
    assert_eq!(request.volumes, ["/data"]);
    let here = std::env::current_dir().unwrap();
    assert_eq!(request.binds, ["vol:/a:ro".to_owned(), "/b:/b".into(), format!("{}/c:/c:ro", here.display())]);
}

#[test]
fn restart_policies() {
    let policy = |text: &str| request(&["--restart", text, "x"], NO_ENV).unwrap().restart.unwrap();
    assert_eq!(policy("always").name, Some(RestartPolicyNameEnum::ALWAYS));
    assert_eq!(policy("on-failure:3").maximum_retry_count, Some(3));
    assert_eq!(policy("on-failure").maximum_retry_count, None);
}

#[test]
fn a_link_twice_is_one() {
    let links = request(&["--link", "db", "--link", "db:db", "--link", "/db:/web/x", "x"], NO_ENV).unwrap().links;
    let shown: Vec<_> = links.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["db:db", "db:x"]);
}

#[test]
fn a_recipient_has_a_name() {
    let mut request = request(&["--link", "db", "x"], NO_ENV).unwrap();
    let first = std::cell::OnceCell::new();
    request.name_recipient(&|name| first.set(name.to_owned()).is_ok());
    let name = request.name.unwrap();
    assert_ne!(Some(&name), first.get(), "that one was taken");
    assert_eq!(container_name(&name), Ok(name.as_str()));
}

#[test]
fn no_network_no_ports() {
    let request = request(&["--network", "host", "-P", "-p", "80:80", "x"], NO_ENV).unwrap();
    assert!(request.publications.is_empty() && !request.publish_all);
    assert_eq!(request.warnings, ["Published ports are discarded when using host network mode"]);
}

#[test]
fn refusals_quote_what_offends() {
    for (arguments, quoted) in [
        (&["-p", "80:99999", "x"][..], "\"80:99999\""),
        (&["-p", "80:80", "-p", "80:81", "x"], "80:81"),
        (&["--expose", "a", "x"], "\"a\""),
        (&["--link", "a:b:c", "x"], "\"a:b:c\""),
        (&["--link", "a:x", "--link", "b:x", "x"], "\"b:x\""),
        (&["--name", "a b", "x"], "\"a b\""),
        (&["-e", "=1", "x"], "\"=1\""),
        (&["-l", "=1", "x"], "\"=1\""),
        (&["-v", "a:b", "x"], "\"a:b\""),
        (&["-v", ":/b", "x"], "\":/b\""),
        (&["-v", "/a:/b:ro:x", "x"], "\"/a:/b:ro:x\""),
        (&["-w", "srv", "x"], "'srv'"),
        (&["--restart", "sometimes", "x"], "\"sometimes\""),
        (&["--restart", "always:3", "x"], "\"always:3\""),
        (&["--restart", "on-failure:x", "x"], "\"on-failure:x\""),
        (&["--restart", "always", "--rm", "x"], "--restart and --rm"),
        (&["--network", "host", "--link", "a", "x"], "\"host\""),
        (&["--network", "container:db", "-p", "80", "x"], "\"container:db\""),
        (&["--network", "a/b", "x"], "\"a/b\""),
        (&[""], "\"\""),
    ] {
        let message = refusal(arguments);
        assert!(message.contains(quoted), "{message}");
    }
}
