//! Turns field accesses and printed values of a parsed template into calls of [`super::value`]'s functions.

use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, PipeNode, Pos, SmolStr};

use super::{TemplateError, functions, value};

/// Rewrites everything in `list`, which was parsed from `text`.
pub fn list(text: &str, list: &mut ListNode) -> Result<(), TemplateError> {
    Rewriter { text }.list(list)
}

/// What prints its arguments: these are shown as Docker's types would be.
const PRINTERS: [&str; 6] = ["print", "printf", "println", "html", "js", "urlquery"];

struct Rewriter<'a> {
    text: &'a str,
}

impl Rewriter<'_> {
    fn list(&self, list: &mut ListNode) -> Result<(), TemplateError> {
        list.nodes.iter_mut().try_for_each(|node| self.node(node))
    }

    fn node(&self, node: &mut Node) -> Result<(), TemplateError> {
        match node {
            Node::Text(_) | Node::Break(_) | Node::Continue(_) => Ok(()),
            Node::List(list) => self.list(list),
            Node::Define(definition) => self.list(&mut definition.body),
            Node::Template(template) => template.pipe.as_mut().map_or(Ok(()), |pipe| self.pipe(pipe, false)),
            Node::If(branch) | Node::Range(branch) | Node::With(branch) => self.branch(branch),
            Node::Action(action) => {
                let field = last_field(&action.pipe.commands);
                self.pipe(&mut action.pipe, false)?;
                // A declaration prints nothing; `nil` alone is an error that the library reports.
                if action.pipe.decl.is_empty() && !is_nil(&action.pipe) {
                    let pos = action.pos;
                    action.pipe.commands.push(call(pos, value::PRINT, vec![string(pos, &field)]));
                }
                Ok(())
            }
        }
    }

    fn branch(&self, branch: &mut BranchNode) -> Result<(), TemplateError> {
        self.pipe(&mut branch.pipe, false)?;
        self.list(&mut branch.body)?;
        branch.else_body.as_mut().map_or(Ok(()), |body| self.list(body))
    }

    /// `keep_null` is for `json`, to which a null list is `null` and not an empty list.
    fn pipe(&self, pipe: &mut PipeNode, keep_null: bool) -> Result<(), TemplateError> {
        let keep_null = keep_null || pipe.commands.iter().any(|c| function_of(c) == Some("json"));
        let mut piped_field = String::new();
        for mut command in std::mem::take(&mut pipe.commands) {
            if let Some(lists) = shows(&command).filter(|_| !pipe.commands.is_empty()) {
                let args = vec![string(command.pos, &piped_field), Expr::Bool(command.pos, lists)];
                pipe.commands.push(call(command.pos, value::SHOW, args));
            }
            piped_field = last_field(std::slice::from_ref(&command));
            self.command(&mut command, keep_null)?;
            pipe.commands.push(command);
        }
        Ok(())
    }

    fn command(&self, command: &mut CommandNode, keep_null: bool) -> Result<(), TemplateError> {
        let shows = shows(command);
        let indexed = command.args.get(1).map_or(String::new(), field_of);
        for (i, expr) in command.args.iter_mut().enumerate() {
            let field = field_of(expr);
            self.expr(expr, keep_null)?;
            if let Some(lists) = shows.filter(|_| i > 0) {
                let pos = expr.pos();
                let shown = std::mem::replace(expr, Expr::Dot(pos));
                *expr = call_expr(pos, value::SHOW, vec![string(pos, &field), Expr::Bool(pos, lists), shown]);
            }
        }
        if let Some(Expr::Identifier(pos, name)) = command.args.first_mut()
            && name == "index"
        {
            let (pos, place) = (*pos, self.place(pos.offset));
            *name = SmolStr::from(value::INDEX);
            command.args.splice(1..1, [string(pos, &place), string(pos, &indexed)]);
        }
        Ok(())
    }

    fn expr(&self, expr: &mut Expr, keep_null: bool) -> Result<(), TemplateError> {
        match expr {
            Expr::Identifier(pos, name) => self.known(*pos, name),
            Expr::Pipe(_, pipe) => self.pipe(pipe, keep_null),
            Expr::Field(pos, fields) => {
                let pos = *pos;
                // Go gives the place of the second element where there are several.
                let skip = if fields.len() > 1 { 1 + fields[0].len() } else { 0 };
                *expr = self.field(pos, skip, "", Expr::Dot(pos), fields, keep_null);
                Ok(())
            }
            Expr::Variable(pos, name, fields) if !fields.is_empty() => {
                let variable = Expr::Variable(*pos, name.clone(), Vec::new());
                *expr = self.field(*pos, name.len(), name, variable, fields, keep_null);
                Ok(())
            }
            Expr::Chain(_, inner, _) if matches!(**inner, Expr::Identifier(..)) => self.expr(inner, keep_null),
            Expr::Chain(pos, inner, fields) => {
                self.expr(inner, keep_null)?;
                *expr = self.field(*pos, 0, "(...)", (**inner).clone(), fields, keep_null);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The call that answers `receiver.field.field`; `skip` is how far after `pos` Go says that it stands.
    fn field(&self, pos: Pos, skip: usize, shown: &str, receiver: Expr, fields: &[SmolStr], keep_null: bool) -> Expr {
        let path: String = fields.iter().flat_map(|f| [".", f]).collect();
        let context = format!("{}: executing \"\" at <{shown}{path}>", self.place(pos.offset + skip));
        let mut args = vec![string(pos, &context), Expr::Bool(pos, keep_null), receiver];
        args.extend(fields.iter().map(|f| string(pos, f)));
        call_expr(pos, value::FIELD, args)
    }

    fn known(&self, pos: Pos, name: &str) -> Result<(), TemplateError> {
        if functions::BUILT_IN.contains(&name) || functions::all().iter().any(|(n, _)| *n == name) {
            return Ok(());
        }
        let message = format!("function {name:?} not defined");
        Err(TemplateError::Parse { line: pos.line, message, text: self.text.to_owned() })
    }

    /// `template: :LINE:COLUMN`, as Go has it: lines from 1, columns from 0 in bytes.
    fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        format!("template: :{}:{column}", before.matches('\n').count() + 1)
    }
}

/// The name of the field that a pipeline of nothing else ends in; empty where it is another.
fn last_field(commands: &[CommandNode]) -> String {
    match commands {
        [CommandNode { args, .. }] if args.len() == 1 => field_of(&args[0]),
        _ => String::new(),
    }
}

/// The name of the field that an operand ends in, which tells its type; empty where it is another.
fn field_of(expr: &Expr) -> String {
    match expr {
        Expr::Field(_, fields) | Expr::Variable(_, _, fields) | Expr::Chain(_, _, fields) => {
            fields.last().map_or(String::new(), |f| f.to_string())
        }
        _ => String::new(),
    }
}

fn is_nil(pipe: &PipeNode) -> bool {
    matches!(&pipe.commands[..], [CommandNode { args, .. }] if matches!(args[..], [Expr::Nil(_)]))
}

/// Whether a command prints its arguments, and then whether lists of plain values are to be made text for it too: the
/// library's `printf` knows them under `%v` alone. (Not for `%q`, which quotes each element.)
fn shows(command: &CommandNode) -> Option<bool> {
    let name = function_of(command).filter(|name| PRINTERS.contains(name))?;
    let quotes = matches!(command.args.get(1), Some(Expr::String(_, format)) if format.contains('q'));
    Some(name == "printf" && !quotes)
}

fn function_of(command: &CommandNode) -> Option<&str> {
    match command.args.first() {
        Some(Expr::Identifier(_, name)) => Some(name),
        _ => None,
    }
}

fn string(pos: Pos, text: &str) -> Expr {
    Expr::String(pos, text.into())
}

fn call(pos: Pos, function: &str, args: Vec<Expr>) -> CommandNode {
    let function = Expr::Identifier(pos, SmolStr::from(function));
    CommandNode { pos, args: std::iter::once(function).chain(args).collect() }
}

fn call_expr(pos: Pos, function: &str, args: Vec<Expr>) -> Expr {
    let commands = vec![call(pos, function, args)];
    Expr::Pipe(pos, PipeNode { pos, decl: Vec::new(), commands, is_assign: false })
}
