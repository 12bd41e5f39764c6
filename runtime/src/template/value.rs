//! JSON as the Go values that Docker would have: which objects are maps, what a null is, how each prints.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use gotmpl::{TemplateError, Value};

/// A template's function.
pub type Function = fn(&[Value]) -> Result<Value, TemplateError>;

/// Called as `FIELD context keep_null receiver name...`.
pub const FIELD: &str = "__field";
/// Called as `INDEX place field receiver key...`; `field` holds the receiver and may be empty.
pub const INDEX: &str = "__index";
/// Called as `PRINT field value` with the value of an action; `field` may be empty.
pub const PRINT: &str = "__print";
/// Called as `SHOW field lists value` with what goes to a printing function; `lists` makes text of plain lists as well.
pub const SHOW: &str = "__show";

/// Answer as Docker's types would: see [`all`].
pub const TYPED: bool = true;
/// Answer by the JSON alone: see [`all`].
pub const PLAIN: bool = false;

/// The functions that a rewritten template calls, over Docker's types or over plain maps.
pub fn all<const TYPES: bool>() -> Vec<(&'static str, Function)> {
    vec![(FIELD, field::<TYPES>), (INDEX, index::<TYPES>), (PRINT, print::<TYPES>), (SHOW, show::<TYPES>)]
}

/// Fields of the Engine's answers that are maps; what else is an object there is a struct.
const MAPS: [&str; 14] = [
    "Annotations",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "VolumeDriverOpts",
    "Volumes",
];

/// Maps whose keys are no strings to Go: `index` does not take one for them.
const PORT_MAPS: [&str; 3] = ["ExposedPorts", "PortBindings", "Ports"];

/// Fields that are pointers: their null is `<nil>`, also where the JSON leaves it out. The null of any other field is an
/// empty list or map.
const POINTERS: [&str; 10] = [
    "ContainerSpec",
    "Health",
    "IPAMConfig",
    "Init",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "Healthcheck",
    "StopTimeout",
    "ImageManifestDescriptor",
];

/// A JSON value as the template library's.
pub fn from_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::Int(n),
            (None, Some(n)) => Value::Uint(n),
            (None, None) => n.as_f64().map_or(Value::Nil, Value::Float),
        },
        Json::String(s) => Value::String(s.as_str().into()),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(map) => {
            let entries = map.iter().map(|(k, v)| (Arc::from(k.as_str()), from_json(v)));
            Value::Map(Arc::new(entries.collect()))
        }
    }
}

/// A template's value as JSON, for the function `json`.
pub fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Uint(n) => Json::from(*n),
        Value::Float(n) => Json::from(*n),
        Value::String(s) => Json::from(s.as_ref()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(map) => Json::Object(map.iter().map(|(k, v)| (k.to_string(), to_json(v))).collect()),
        _ => Json::Null,
    }
}

/// Whether an object is a struct: by the name of the field that holds it, or else by its keys, as Go exports no other
/// fields than capitalised ones.
fn is_struct(field: &str, map: &BTreeMap<Arc<str>, Value>) -> bool {
    let exported =
        |k: &Arc<str>| k.starts_with(|c: char| c.is_ascii_uppercase()) && k.bytes().all(|b| b.is_ascii_alphanumeric());
    !MAPS.contains(&field) && !map.is_empty() && map.keys().all(exported)
}

/// What a null in this field is.
fn null_of(field: &str) -> Value {
    if POINTERS.contains(&field) {
        Value::Nil
    } else if MAPS.contains(&field) {
        Value::Map(Arc::default())
    } else {
        Value::List(Vec::new().into())
    }
}

fn field<const TYPES: bool>(args: &[Value]) -> Result<Value, TemplateError> {
    let [Value::String(context), Value::Bool(keep_null), receiver, names @ ..] = args else {
        return Err(TemplateError::Exec("a field access without a field".to_owned()));
    };
    let fail = |what: String| TemplateError::Exec(format!("{context}: {what}"));
    let mut value = receiver.clone();
    let mut held_by = "";
    for name in names.iter().filter_map(Value::as_str) {
        value = match &value {
            Value::Map(map) => match map.get(name) {
                Some(Value::Nil) if TYPES && !keep_null => null_of(name),
                Some(value) => value.clone(),
                None if !TYPES || is_struct(held_by, map) => {
                    if !TYPES || !POINTERS.contains(&name) {
                        return Err(fail(format!("map has no entry for key {name:?}")));
                    }
                    Value::Nil
                }
                // A map's: from here on, every field of nothing is nothing.
                None => return Ok(Value::Nil),
            },
            Value::Nil => return Err(fail(format!("nil data; no entry for key {name:?}"))),
            other => {
                let kind = other.type_name();
                return Err(fail(format!("can't evaluate field {name} in type {kind}")));
            }
        };
        held_by = name;
    }
    Ok(value)
}

fn index<const TYPES: bool>(args: &[Value]) -> Result<Value, TemplateError> {
    let [Value::String(place), Value::String(field), receiver, keys @ ..] = args else {
        return Err(TemplateError::Exec("error calling index: it needs a list or a map".to_owned()));
    };
    let fail =
        |what: String| TemplateError::Exec(format!("{place}: executing \"\" at <index>: error calling index: {what}"));
    if TYPES && PORT_MAPS.contains(&field.as_ref()) {
        return Err(fail("value has type string; should be nat.Port".to_owned()));
    }
    let mut value = receiver.clone();
    for key in keys {
        value = match (&value, key) {
            // Labels: a map of strings has an empty one for a key that is not there.
            (Value::Map(map), Value::String(k))
                if TYPES && !map.contains_key(k) && map.values().all(|v| matches!(v, Value::String(_))) =>
            {
                Value::String("".into())
            }
            _ => value.index(key).map_err(|e| match e {
                TemplateError::Exec(what) => fail(what),
                other => fail(other.to_string()),
            })?,
        };
    }
    Ok(value)
}

fn print<const TYPES: bool>(args: &[Value]) -> Result<Value, TemplateError> {
    Ok(match args {
        // There is such a field, and it points nowhere; the library prints what is not there at all.
        [Value::String(field), Value::Nil] if TYPES && POINTERS.contains(&field.as_ref()) => {
            Value::String("<nil>".into())
        }
        [Value::String(field), value @ (Value::List(_) | Value::Map(_))] => printed::<TYPES>(field, value),
        [_, other] => other.clone(),
        _ => Value::Nil,
    })
}

/// Objects become text; what the library prints in Go's way itself stays what it is, so that every verb still fits.
fn show<const TYPES: bool>(args: &[Value]) -> Result<Value, TemplateError> {
    fn has_object(value: &Value) -> bool {
        match value {
            Value::Map(_) => true,
            Value::List(items) => items.iter().any(has_object),
            _ => false,
        }
    }
    Ok(match args {
        [Value::String(field), Value::Bool(lists), value]
            if has_object(value) || (*lists && matches!(value, Value::List(_))) =>
        {
            printed::<TYPES>(field, value)
        }
        [.., value] => value.clone(),
        [] => Value::Nil,
    })
}

fn printed<const TYPES: bool>(field: &str, value: &Value) -> Value {
    let mut text = String::new();
    write_value::<TYPES>(&mut text, field, value);
    text.into()
}

/// Go's `%v` of a value: `{a b}` for a struct, `map[k:v]` for a map, `[a b]` for a list. `field` is what holds it.
fn write_value<const TYPES: bool>(out: &mut String, field: &str, value: &Value) {
    let separator = |i| if i > 0 { " " } else { "" };
    match value {
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(separator(i));
                write_value::<TYPES>(out, "", item);
            }
            out.push(']');
        }
        Value::Map(map) if TYPES && is_struct(field, map) => {
            out.push('{');
            for (i, (name, value)) in map.iter().enumerate() {
                out.push_str(separator(i));
                match value {
                    Value::Nil => write_value::<TYPES>(out, name, &null_of(name)),
                    value => write_value::<TYPES>(out, name, value),
                }
            }
            out.push('}');
        }
        Value::Map(map) if map.is_empty() && field == SET_ELEMENT => out.push_str("{}"),
        Value::Map(map) => {
            out.push_str("map[");
            for (i, (key, value)) in map.iter().enumerate() {
                out.push_str(separator(i));
                out.push_str(key);
                out.push(':');
                match (field, value) {
                    ("Ports" | "PortBindings", Value::Nil) if TYPES => out.push_str("[]"),
                    ("ExposedPorts" | "Volumes", value) if TYPES => write_value::<TYPES>(out, SET_ELEMENT, value),
                    (_, value) => write_value::<TYPES>(out, "", value),
                }
            }
            out.push(']');
        }
        other => {
            // Writing to a string does not fail.
            let _ = write!(out, "{other}");
        }
    }
}

/// No field's name: the empty struct that Go's sets have for a value.
const SET_ELEMENT: &str = "{}";
