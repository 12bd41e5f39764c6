//! Go templates as `docker inspect -f` and `docker ps --format` take them, over JSON.
//!
//! The language itself (`text/template`: syntax, control flow, `printf` and the other built-in functions) is the `gotmpl`
//! crate's. Docker however runs templates over Go *structs*, and JSON does not tell a struct from a map. What depends on
//! that is put back here: [`rewrite`] turns every field access and every printed value into a call, and [`value`] answers
//! those calls by what Docker's types are. [`functions`] are the ones that Docker adds.

mod balance;
mod functions;
mod rewrite;
mod value;

use gotmpl::parse::Parser;

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
pub struct Template {
    text: String,
    inner: gotmpl::Template,
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

        let mut inner = gotmpl::Template::new(MAIN);
        for (name, function) in functions::all().into_iter().chain(value::all()) {
            inner = inner.func(name, function);
        }
        rewrite::list(text, &mut main)?;
        inner = inner.add_parse_tree(MAIN, main);
        for mut definition in definitions {
            rewrite::list(text, &mut definition.body)?;
            inner = inner.add_parse_tree(&definition.name, definition.body);
        }
        Ok(Template { text: text.to_owned(), inner })
    }

    /// The template's text for this data, with no newline added.
    ///
    /// Keys are matched by case. A key that a struct of Docker's does not have is an error; one that a map of Docker's
    /// (labels, ports, networks) does not have is `<no value>`.
    ///
    /// # Errors
    /// Missing fields, and operations that do not fit the value's type.
    pub fn render(&self, data: &serde_json::Value) -> Result<String, TemplateError> {
        self.inner.execute_template_to_string(MAIN, &value::from_json(data)).map_err(|e| {
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
