//! Whether every block of a template is closed: the library's parser takes `{{end}}` and the end of the text for the same.

/// A block that is open, and whether it may still have an `else`.
struct Open {
    keyword: &'static str,
    line: usize,
    may_else: bool,
}

const BLOCKS: [&str; 5] = ["if", "range", "with", "define", "block"];

/// Checks a template that the library's lexer has accepted.
///
/// # Errors
/// The line, from 1, and in Go's words what is wrong there.
pub fn check(text: &str) -> Result<(), (usize, String)> {
    let mut open: Vec<Open> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let action = &rest[start + 2..];
        let line = 1 + text[..text.len() - action.len()].matches('\n').count();
        let length = action_length(action);
        let unexpected = |what: &str| Err((line, format!("unexpected {{{{{what}}}}}")));
        let (keyword, after) = keyword(&action[..length]);
        match keyword {
            "define" if !open.is_empty() => return unexpected("define"),
            "end" if open.pop().is_none() => return unexpected("end"),
            "else" => match open.last_mut() {
                // `else if` and `else with` may be followed by another one.
                Some(block) if block.may_else => block.may_else = matches!(self::keyword(after).0, "if" | "with"),
                _ => return unexpected("else"),
            },
            "break" | "continue" if !open.iter().any(|o| o.keyword == "range") => {
                return Err((line, format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
            }
            _ => {
                if let Some(keyword) = BLOCKS.into_iter().find(|b| *b == keyword) {
                    open.push(Open { keyword, line, may_else: ["if", "range", "with"].contains(&keyword) });
                }
            }
        }
        rest = &action[length..];
    }
    match open.last() {
        Some(Open { keyword, line, .. }) => {
            Err((*line, format!("unexpected EOF: this {{{{{keyword}}}}} has no {{{{end}}}}")))
        }
        None => Ok(()),
    }
}

/// The first word of an action, past a trim marker, and what follows it.
fn keyword(action: &str) -> (&str, &str) {
    let trimmed =
        action.strip_prefix('-').filter(|a| a.starts_with(char::is_whitespace)).unwrap_or(action).trim_start();
    let end = trimmed.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(trimmed.len());
    trimmed.split_at(end)
}

/// The bytes of an action up to its `}}`; closing brackets in comments and quotes do not count.
fn action_length(action: &str) -> usize {
    let inside = action.strip_prefix("- ").unwrap_or(action);
    if inside.starts_with("/*") {
        return action.find("*/").map_or(action.len(), |end| end + 2);
    }
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in action.char_indices() {
        match quote {
            None if action[i..].starts_with("}}") => return i,
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None => {}
            Some(_) if escaped => escaped = false,
            Some('"' | '\'') if c == '\\' => escaped = true,
            Some(q) if q == c => quote = None,
            Some(_) => {}
        }
    }
    action.len()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn closed() {
        for text in [
            "",
            "}} end else",
            "{{if .A}}{{else if .B}}{{else}}{{end}}",
            "{{with .A}}{{else with .B}}{{else}}{{end}}",
            "{{- range .A -}}{{if .}}{{break}}{{end}}{{- else -}}{{- end -}}",
            r#"{{define "x"}}{{end}}{{block "y" .}}{{end}}"#,
            r#"{{"}}{{end}}"}}{{`}}{{if}}`}}{{'}'}}{{"\"}}{{end}}"}}"#,
            "{{/* }} {{if}} */}}{{- /* {{end}} */ -}}",
            "{{.end}}{{$if}}{{endless}}{{iffy}}",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn open() {
        for (text, line, message) in [
            ("a\n{{end}}", 2, "unexpected {{end}}"),
            ("{{if .A}}{{end}}{{end}}", 1, "unexpected {{end}}"),
            ("{{else}}", 1, "unexpected {{else}}"),
            ("{{if .A}}{{else}}{{else}}{{end}}", 1, "unexpected {{else}}"),
            (r#"{{define "x"}}{{else}}{{end}}"#, 1, "unexpected {{else}}"),
            (r#"{{if .A}}{{define "x"}}{{end}}{{end}}"#, 1, "unexpected {{define}}"),
            ("{{if .A}}\n{{range .B}}{{end}}", 1, "unexpected EOF: this {{if}} has no {{end}}"),
            ("{{break}}", 1, "{{break}} outside {{range}}"),
            ("{{if .A}}{{- continue}}{{end}}", 1, "{{continue}} outside {{range}}"),
        ] {
            assert_eq!(check(text), Err((line, message.to_owned())), "{text}");
        }
    }
}
