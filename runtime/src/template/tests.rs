//! What Docker's command line (28.2) prints for the same templates over `fixture.json`, its answer for a container.

use serde_json::json;

use super::*;

fn render(template: &str) -> String {
    let data = serde_json::from_str(include_str!("fixture.json")).unwrap();
    let template = Template::parse(template).unwrap_or_else(|e| panic!("{template}: {e}"));
    template.render(&data).unwrap_or_else(|e| panic!("{e}"))
}

fn fails(template: &str) -> String {
    let data = serde_json::from_str(include_str!("fixture.json")).unwrap();
    let error = match Template::parse(template).and_then(|t| t.render(&data)) {
        Ok(text) => panic!("{template} gave {text:?}"),
        Err(e) => e.to_string(),
    };
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn all(cases: &[(&str, &str)]) {
    for (template, want) in cases {
        assert_eq!(render(template), *want, "{template}");
    }
}

#[test]
fn what_people_ask_docker_for() {
    all(&[
        ("{{ .HostConfig.Links }}", "[/db:/web/webdb]"),
        ("{{.NetworkSettings.IPAddress}}", "172.17.0.3"),
        ("{{.State.Running}} {{.State.Pid}} {{.State.ExitCode}}", "true 1234 0"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "172.17.0.3"),
        (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "8080"),
        (r#"{{(index .NetworkSettings.Ports "80/tcp" 1).HostIp}}"#, "::"),
        (
            "{{range $p, $conf := .NetworkSettings.Ports}}{{if $conf}} {{$p}} -> {{(index $conf 0).HostPort}}{{end}}{{end}}",
            " 80/tcp -> 8080",
        ),
        ("{{range $p, $c := .NetworkSettings.Ports}}{{$p}};{{end}}", "443/tcp;80/tcp;"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "PATH=/usr/bin\nA=1\n"),
        (r#"{{index .Config.Labels "com.example.a"}}"#, "1"),
        ("{{json .Config.Cmd}}", r#"["nginx","-g"]"#),
        ("{{.Name}} {{slice .Id 0 12}} {{truncate .Id 12}}", "/web 4c01db0b339c 4c01db0b339c"),
    ]);
}

#[test]
fn values_print_as_docker_types() {
    all(&[
        ("{{.NetworkSettings.Ports}}", "map[443/tcp:[] 80/tcp:[{0.0.0.0 8080} {:: 8080}]]"),
        ("{{.HostConfig.PortBindings}}", "map[443/tcp:[] 80/tcp:[{ 8080}]]"),
        ("{{.Config.ExposedPorts}}", "map[443/tcp:{} 80/tcp:{}]"),
        ("{{.Config.Labels}}", "map[com.example.a:1 tier:front]"),
        ("{{.Config.Volumes}} {{.Config.Cmd}} {{.Config.Entrypoint}}", "map[] [nginx -g] []"),
        ("{{.HostConfig.PidsLimit}} {{.HostConfig.Binds}} {{.Mounts}}", "<nil> [] []"),
        ("{{range .NetworkSettings.Networks}}{{.IPAMConfig}}{{.DriverOpts}}{{.Aliases}}{{end}}", "<nil>map[][]"),
        ("{{.HostConfig.LogConfig.Config}}", "map[]"),
        ("{{len .HostConfig.Binds}} {{if .HostConfig.Binds}}a{{else}}b{{end}}", "0 b"),
        ("{{.State.Health}} {{if .State.Health}}a{{end}}", "<nil> "),
        (r#"{{printf "%s" .Args}}"#, "[-g daemon off;]"),
        // Docker falls back to plain maps here: a port is no string to it.
        (
            r#"{{index .NetworkSettings.Ports "80/tcp"}}"#,
            "[map[HostIp:0.0.0.0 HostPort:8080] map[HostIp::: HostPort:8080]]",
        ),
        (r#"{{printf "%v" .NetworkSettings.Ports}}"#, "map[443/tcp:[] 80/tcp:[{0.0.0.0 8080} {:: 8080}]]"),
        ("{{print nil .HostConfig.Binds}}", "<nil> []"),
        // A null stays one in JSON.
        ("{{json (.HostConfig.Binds)}}", "null"),
        (
            "{{json .NetworkSettings.Ports}} {{json .HostConfig.Binds}} {{.HostConfig.Binds|json}}",
            concat!(
                r#"{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}"#,
                " null null"
            ),
        ),
    ]);
}

#[test]
fn keys_that_are_not_there() {
    all(&[
        ("{{.Config.Labels.nope}}", "<no value>"),
        ("{{.Config.Labels.tier}}", "front"),
        (r#"{{index .Config.Labels "nope"}}|"#, "|"),
        (r#"{{index .NetworkSettings.Ports "9/tcp"}}"#, "<no value>"),
        ("{{.NetworkSettings.Networks.nope}}", "<no value>"),
        ("{{.NetworkSettings.Networks.nope.IPAddress}}", "<no value>"),
    ]);
    for (template, want) in [
        ("{{.Foo}}", r#"template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo""#),
        ("{{.name}}", r#"template: :1:2: executing "" at <.name>: map has no entry for key "name""#),
        ("{{.State.Foo}}", r#"template: :1:8: executing "" at <.State.Foo>: map has no entry for key "Foo""#),
        (
            "ab\n {{.State.Health.Status}}",
            r#"template: :2:9: executing "" at <.State.Health.Status>: map has no entry for key "Health""#,
        ),
        ("{{with .Nope}}x{{end}}", r#"template: :1:7: executing "" at <.Nope>: map has no entry for key "Nope""#),
        (
            "{{$x := .State}}{{$x.Pid}}{{$x.Foo}}",
            r#"template: :1:30: executing "" at <$x.Foo>: map has no entry for key "Foo""#,
        ),
        ("{{.Name.Foo}}", r#"template: :1:7: executing "" at <.Name.Foo>: can't evaluate field Foo in type string"#),
    ] {
        assert_eq!(fails(template), want, "{template}");
    }
}

#[test]
fn the_language() {
    all(&[
        ("", ""),
        ("plain }} text", "plain }} text"),
        ("x{{/* c */}}y  {{- \"z\" -}}  w", "xyzw"),
        ("{{range $i, $e := .Args}}{{if $i}}, {{end}}{{$e}}{{end}}", "-g, daemon off;"),
        ("{{range .Mounts}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range .Args}}{{.}}{{break}}{{end}}", "-g"),
        (r#"{{range .Args}}{{if eq . "-g"}}{{continue}}{{end}}{{.}}{{end}}"#, "daemon off;"),
        ("{{with .Config.User}}{{.}}{{else}}root{{end}}", "root"),
        ("{{with .State}}{{.Status}} {{$.Name}}{{end}}", "running /web"),
        ("{{if .State.Dead}}a{{else if .State.Running}}b{{else}}c{{end}}", "b"),
        ("{{$x := 1}}{{range .Args}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{1.5}} {{0x10}} {{'a'}} {{true}} {{`raw\\n`}}", "1.5 16 97 true raw\\n"),
        (r#"{{define "x"}}A{{.}}{{end}}{{template "x" .Name}}"#, "A/web"),
    ]);
}

#[test]
fn functions_of_go() {
    all(&[
        (
            r#"{{printf "%5s|%-5s|%05d|%x|%t|%.2f|%q|%v|%%" "a" "b" 42 255 true 1.5 "q" .Args}}"#,
            r#"    a|b    |00042|ff|true|1.50|"q"|[-g daemon off;]|%"#,
        ),
        (r#"{{printf "%d" "x"}}"#, "%!d(string=x)"),
        (r#"{{.Name | printf "%s-%s" "a"}}"#, "a-/web"),
        (r#"{{and .Name .Id | len}} {{or .Config.User "root"}} {{not .Name}}"#, "64 root false"),
        (
            r#"{{eq .State.ExitCode 0}} {{ne 1 1}} {{lt 1 2}} {{le 2 2}} {{gt "a" "b"}} {{ge 1 2}}"#,
            "true false true true false false",
        ),
        (r#"{{eq .State.Status "dead" "running"}}"#, "true"),
        (r#"{{html "<a>"}} {{urlquery "a b"}} {{slice .Name 1}}"#, "&lt;a&gt; a+b web"),
    ]);
    assert!(fails("{{index .Args 7}}").ends_with("error calling index: index out of range: 7"));
    assert!(fails("{{index .Args 7}}").starts_with("template: :1:2: "));
    fails(r#"{{(index .NetworkSettings.Ports "443/tcp" 0).HostPort}}"#);
    fails(r#"{{eq .State.ExitCode "0"}}"#);
    fails("{{range .Name}}{{end}}");
    fails("{{nil}}");
    fails(r#"{{"a" 1}}"#);
    fails(r#"{{template "y"}}"#);
}

#[test]
fn functions_of_docker() {
    all(&[
        (r#"{{join .Config.Cmd "_"}} {{split "a:b" ":"}} {{split "ab" ""}}"#, "nginx_-g [a b] [a b]"),
        (r#"{{upper "aB"}} {{lower "aB"}} {{title "ab cd-ef don't x_y"}}"#, "AB ab Ab Cd-Ef Don'T X_y"),
        (r#"{{pad "x" 2 1}}|{{pad "" 2 1}}|"#, "  x ||"),
        (r#"{{truncate "abc" 2}} {{truncate "abc" 3}} {{truncate "abc" 9}} {{.Id | len}}"#, "ab abc abc 64"),
        (r#"{{json "<a>"}} {{json 1}} {{json .Mounts}}"#, r#""<a>" 1 []"#),
    ]);
    for template in [
        r#"{{join .Name ","}}"#,
        r#"{{lower 1}}"#,
        r#"{{pad "x" -1 0}}"#,
        r#"{{pad "x" 1000000000000 0}}"#,
        r#"{{truncate "x" -1}}"#,
        "{{json}}",
        "{{split .Name}}",
    ] {
        assert!(fails(template).contains("error calling "), "{template}");
    }
}

#[test]
fn what_is_no_template() {
    for (template, want) in [
        ("{{foo}}", r#"template: :1: function "foo" not defined, in "{{foo}}""#),
        ("\n{{.Name | foo}}", r#"template: :2: function "foo" not defined, in "\n{{.Name | foo}}""#),
        ("{{__field}}", r#"template: :1: function "__field" not defined, in "{{__field}}""#),
        ("a{{end}}b", r#"template: :1: unexpected {{end}}, in "a{{end}}b""#),
        ("{{.Foo", r#"template: :1: unclosed action, in "{{.Foo""#),
    ] {
        assert_eq!(fails(template), want);
    }
    for template in
        ["{{if", "{{if .Name}}", "{{end}}", "{{}}", "{{break}}", "{{$y}}", "{{range}}", r#"{{"a}}"#, "{{.a.}}"]
    {
        assert!(fails(template).starts_with("template: "), "{template}");
    }
}

#[test]
fn numbers_keep_their_digits() {
    let data = json!({"A": 10000000000000000u64, "B": u64::MAX, "C": -5, "D": 21000000});
    let text = Template::parse("{{.A}} {{.B}} {{.C}} {{.D}}").unwrap().render(&data).unwrap();
    assert_eq!(text, "10000000000000000 18446744073709551615 -5 21000000");
}
