//! Go templates as `docker inspect -f` and `docker ps --format` take them, over JSON.
//!
//! The language itself (`text/template`: syntax, control flow, `printf` and the other built-in functions) is the `gotmpl`
//! crate's. Docker however runs templates over Go *structs*, and JSON does not tell a struct from a map. What depends on
//! that is put back here: `rewrite` turns every field access and every printed value into a call, and `value` answers
//! those calls by what Docker's types are. `functions` are the ones that Docker adds.

mod balance;
mod functions;
mod rewrite;
mod value;

use gotmpl::parse::Parser;
use value::Function;
use value::{PLAIN, TYPED};

/// Why a template could not be read or carried out: one line, in Go's manner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is no template; `template: :LINE: what, in "TEXT"`.
    #[error("template: :{line}: {message}, in {text:?}")]
    Parse {
        /// The line of the template, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
        /// The whole template.
        text: String,
    },
    /// The template does not fit the data; `template: :LINE:COLUMN: executing "" at <.Foo>: ...` where the place is known.
    #[error("{0}")]
    Execute(String),
}

/// A parsed template.
///
/// Docker runs a template over its typed structs first. Where that fails it runs it again over the plain JSON, in which
/// every object is a map and a missing key an error, and the second outcome counts.
pub struct Template {
    text: String,
    typed: gotmpl::Template,
    plain: gotmpl::Template,
}

/// The name under which the main body is kept: none, as with Docker's.
const MAIN: &str = "";

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Syntax errors and unknown functions.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let error = |line, message| TemplateError::Parse { line, message, text: text.to_owned() };
        let parse_error = |e: gotmpl::TemplateError| {
            let (line, message) = match e {
                gotmpl::TemplateError::Parse { line, message, .. }
                | gotmpl::TemplateError::Lex { line, message, .. } => (line, message),
                other => (1, other.to_string()),
            };
            error(line, message)
        };
        let (mut main, definitions) = Parser::new(text, "{{", "}}").and_then(Parser::parse).map_err(parse_error)?;

        balance::check(text).map_err(|(line, message)| error(line, message))?;

        rewrite::list(text, &mut main)?;
        let mut bodies = vec![(MAIN.to_owned(), main)];
        for mut definition in definitions {
            rewrite::list(text, &mut definition.body)?;
            bodies.push((definition.name.to_string(), definition.body));
        }

        let build = |answers: Vec<(&'static str, Function)>| {
            let functions = functions::all().into_iter().chain(answers);
            let empty = functions.fold(gotmpl::Template::new(MAIN), |t, (name, function)| t.func(name, function));
            bodies.iter().fold(empty, |t, (name, body)| t.add_parse_tree(name, body.clone()))
        };
        Ok(Template { text: text.to_owned(), typed: build(value::all::<TYPED>()), plain: build(value::all::<PLAIN>()) })
    }

    /// The template's text for this data, with no newline added.
    ///
    /// Keys are matched by case. A key that a struct of Docker's does not have is an error; one that a map of Docker's
    /// (labels, ports, networks) does not have is `<no value>`.
    ///
    /// # Errors
    /// Missing fields, and operations that do not fit the value's type.
    pub fn render(&self, data: &serde_json::Value) -> Result<String, TemplateError> {
        let data = value::from_json(data);
        let typed = self.typed.execute_template_to_string(MAIN, &data);
        typed.or_else(|_| self.plain.execute_template_to_string(MAIN, &data)).map_err(|e| {
            let message = match e {
                gotmpl::TemplateError::Exec(message) => message,
                other => other.to_string(),
            };
            // Our own functions know where they stand; the library's do not.
            TemplateError::Execute(match message.starts_with("template: ") {
                true => message,
                false => format!("template: executing {:?}: {message}", self.text),
            })
        })
    }
}

#[cfg(test)]
mod tests;
