//! The functions that Docker adds to Go's.

use gotmpl::{TemplateError, Value};

use super::value::{Function, to_json};

/// Go's own, which the library has.
pub const BUILT_IN: [&str; 19] = [
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or", "print", "printf",
    "println", "slice", "urlquery",
];

/// Docker's, by name.
pub fn all() -> Vec<(&'static str, Function)> {
    vec![
        ("json", json),
        ("join", join),
        ("split", split),
        ("lower", |args| Ok(strings::<1>("lower", args)?[0].to_lowercase().into())),
        ("upper", |args| Ok(strings::<1>("upper", args)?[0].to_uppercase().into())),
        ("title", |args| Ok(title(strings::<1>("title", args)?[0]).into())),
        ("pad", pad),
        ("truncate", truncate),
    ]
}

/// More blanks than anybody pads with.
const MAX_PAD: i64 = 1 << 16;

fn json(args: &[Value]) -> Result<Value, TemplateError> {
    match args {
        [value] => Ok(to_json(value).to_string().into()),
        _ => Err(wrong("json", args)),
    }
}

fn join(args: &[Value]) -> Result<Value, TemplateError> {
    let (items, separator) = match args {
        [Value::List(items), Value::String(separator)] => (items, separator),
        _ => return Err(wrong("join", args)),
    };
    let items: Option<Vec<_>> = items.iter().map(Value::as_str).collect();
    Ok(items.ok_or_else(|| wrong("join", args))?.join(separator).into())
}

fn split(args: &[Value]) -> Result<Value, TemplateError> {
    let [text, separator] = strings("split", args)?;
    // Go splits into characters where Rust would add empty ends.
    let parts: Vec<Value> = match separator {
        "" => text.chars().map(|c| c.to_string().into()).collect(),
        _ => text.split(separator).map(|part| part.to_owned().into()).collect(),
    };
    Ok(Value::List(parts.into()))
}

/// Each word with a capital, by Go's `strings.Title`: a word starts after what is no letter, digit or underscore.
fn title(text: &str) -> String {
    let mut inside = false;
    let capital = |c: char| {
        let first = !inside;
        inside = c.is_alphanumeric() || c == '_';
        if first { c.to_uppercase().collect::<String>() } else { c.to_string() }
    };
    text.chars().map(capital).collect()
}

/// `pad TEXT BEFORE AFTER`: blanks around a text that is not empty.
fn pad(args: &[Value]) -> Result<Value, TemplateError> {
    match args {
        [Value::String(text), Value::Int(before), Value::Int(after)]
            if [before, after].iter().all(|n| (0..=MAX_PAD).contains(*n)) =>
        {
            // Within the bounds just checked.
            let blanks = |n: i64| " ".repeat(n as usize);
            let padded = format!("{}{text}{}", blanks(*before), blanks(*after));
            Ok(if text.is_empty() { text.to_string() } else { padded }.into())
        }
        _ => Err(wrong("pad", args)),
    }
}

/// `truncate TEXT LENGTH`: at most so many bytes, and whole characters of them.
fn truncate(args: &[Value]) -> Result<Value, TemplateError> {
    match args {
        [Value::String(text), Value::Int(length)] => {
            let length = usize::try_from(*length).map_err(|_| wrong("truncate", args))?;
            Ok(text[..text.floor_char_boundary(length)].to_owned().into())
        }
        _ => Err(wrong("truncate", args)),
    }
}

fn strings<'a, const N: usize>(function: &str, args: &'a [Value]) -> Result<[&'a str; N], TemplateError> {
    let texts: Option<Vec<_>> = args.iter().map(Value::as_str).collect();
    texts.and_then(|t| t.try_into().ok()).ok_or_else(|| wrong(function, args))
}

fn wrong(function: &str, args: &[Value]) -> TemplateError {
    let usage = match function {
        "json" => "json VALUE",
        "join" => "join LIST_OF_STRINGS SEPARATOR",
        "split" => "split STRING SEPARATOR",
        "pad" => "pad STRING BEFORE AFTER",
        "truncate" => "truncate STRING LENGTH",
        _ => "one STRING",
    };
    let got: Vec<_> = args.iter().map(Value::type_name).collect();
    TemplateError::Exec(format!("error calling {function}: it takes {usage}; got {}", got.join(" ")))
}
