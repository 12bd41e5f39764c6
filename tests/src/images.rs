//! Images made from the machine's own programs, without a registry.
//!
//! Each is built once per machine as a tar file under `target/lab-images`, under a name that changes with what it is made of.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::engine::Client;
use crate::process::{command, must};
use crate::requirements::which;
use crate::runtime::beside;

/// Counts up with every change of the recipes below.
const RECIPE: u32 = 1;

/// The user that PostgreSQL runs as in its image; what makes the data directory does so as nobody.
const POSTGRES: (u32, u32) = (70, 65534);

/// An image that the lab can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Image {
    /// A shell and the usual tools (`wget`, `nc`, `ping`, ...). Exposes nothing.
    Busybox,
    /// busybox's httpd on exposed port 5000 with a page `webapp`; also `psql`.
    Webapp,
    /// nginx on exposed port 80 with a page `nginx`.
    Nginx,
    /// PostgreSQL on exposed port 5432, everybody trusted; `PG_VERSION=9.3` in its environment, as in Docker's manual.
    Postgres,
    /// The echo server of this crate on exposed port 7, TCP and UDP: it says which address it sees.
    Echo,
}

impl Image {
    /// The name to run it by.
    pub const fn name(self) -> &'static str {
        match self {
            Image::Busybox => "busybox",
            Image::Webapp => "webapp",
            Image::Nginx => "nginx",
            Image::Postgres => "postgres",
            Image::Echo => "echo",
        }
    }

    /// What `docker import --change` is told.
    fn changes(self) -> &'static [&'static str] {
        match self {
            Image::Busybox => &["CMD [\"sh\"]"],
            Image::Webapp => &["EXPOSE 5000", "CMD [\"httpd\", \"-f\", \"-p\", \"5000\", \"-h\", \"/www\"]"],
            Image::Nginx => &["EXPOSE 80", "CMD [\"nginx\", \"-c\", \"/etc/nginx.conf\", \"-g\", \"daemon off;\"]"],
            Image::Postgres => &[
                "EXPOSE 5432",
                "ENV PG_VERSION=9.3",
                "USER postgres",
                "CMD [\"/usr/local/bin/postgres\", \"-D\", \"/data\"]",
            ],
            Image::Echo => &["EXPOSE 7/tcp", "EXPOSE 7/udp", "CMD [\"peer\", \"tcp:0.0.0.0:7\", \"udp:0.0.0.0:7\"]"],
        }
    }

    /// The programs that it is made of.
    fn programs(self) -> Result<Vec<PathBuf>> {
        let find = |name: &str, package: &str| {
            which(name).with_context(|| format!("{name} is missing: apt-get install {package}"))
        };
        let mut programs = vec![find("busybox", "busybox-static")?];
        match self {
            Image::Busybox => {}
            Image::Webapp => programs.push(postgres()?.join("psql")),
            Image::Nginx => programs.push(find("nginx", "nginx-light")?),
            Image::Postgres => {
                let bin = postgres()?;
                programs.extend([bin.join("postgres"), bin.join("psql")]);
            }
            Image::Echo => programs.push(beside("peer", "cargo build -p tests --bins")?),
        }
        Ok(programs)
    }

    /// Imports it into an Engine.
    pub(crate) fn import(self, client: &Client) -> Result<()> {
        let tar = self.tar()?;
        let mut words = vec!["import".to_owned()];
        for change in self.changes().iter().chain(&["ENV PATH=/bin:/usr/local/bin"]) {
            words.extend(["--change".to_owned(), (*change).to_owned()]);
        }
        words.extend([tar.display().to_string(), self.name().to_owned()]);
        client.must(words).map(drop)
    }

    /// Its root file system, made where nobody has yet.
    fn tar(self) -> Result<PathBuf> {
        let programs = self.programs()?;
        let mut hash = DefaultHasher::new();
        RECIPE.hash(&mut hash);
        for program in &programs {
            let meta = program.metadata().with_context(|| format!("cannot read {}", program.display()))?;
            (program, meta.len(), meta.mtime(), meta.mtime_nsec()).hash(&mut hash);
        }
        let cache = cache()?;
        let tar = cache.join(format!("{}-{:016x}.tar", self.name(), hash.finish()));
        let lock = File::create(cache.join(format!("{}.lock", self.name()))).context("the image cache's lock")?;
        lock.lock().context("the image cache's lock")?;
        if !tar.exists() {
            self.forget(&cache)?;
            let root = crate::sweep::folder(&format!("{}-image-{}", crate::sweep::name(0), self.name()));
            let made = self.make(&root, &programs, &tar);
            let removed = fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()));
            made.with_context(|| format!("cannot make the image {}", self.name()))?;
            removed?;
        }
        Ok(tar)
    }

    /// Removes its older tar files.
    fn forget(self, cache: &Path) -> Result<()> {
        let prefix = format!("{}-", self.name());
        for entry in fs::read_dir(cache)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn make(self, root: &Path, programs: &[PathBuf], tar: &Path) -> Result<()> {
        for dir in ["bin", "etc", "tmp", "usr/local/bin", "www", "root", "var/log/nginx", "var/lib/nginx", "run"] {
            fs::create_dir_all(root.join(dir))?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::write(
            root.join("etc/passwd"),
            format!("root:x:0:0:::/bin/sh\npostgres:x:{0}:{0}::/tmp:/bin/sh\n", POSTGRES.0),
        )?;
        fs::write(root.join("etc/group"), format!("root:x:0:\npostgres:x:{}:\n", POSTGRES.0))?;
        fs::write(root.join("www/index.html"), self.name())?;
        let [busybox, rest @ ..] = programs else { bail!("an image needs busybox") };
        fs::copy(busybox, root.join("bin/busybox"))?;
        for applet in must(command(["busybox", "--list"]).current_dir("/"))?.lines().filter(|a| *a != "busybox") {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        for program in rest {
            copy_program(program, root)?;
        }
        match self {
            Image::Nginx => fs::write(root.join("etc/nginx.conf"), NGINX)?,
            Image::Postgres => add_postgres(root)?,
            Image::Busybox | Image::Webapp | Image::Echo => {}
        }
        // A half-written file must not be taken for a whole one.
        let part = tar.with_extension("part");
        must(command(["tar", "--numeric-owner", "-C"]).arg(root).arg("-cf").arg(&part).arg("."))?;
        fs::rename(&part, tar)?;
        Ok(())
    }
}

const NGINX: &str = "
user root;
events {}
http {
    access_log /dev/stdout;
    server { listen 80; listen [::]:80; root /www; }
}
";

/// Copies a program to its own path, into /usr/local/bin by a link, and the libraries that it names to theirs.
fn copy_program(program: &Path, root: &Path) -> Result<()> {
    copy(program, root)?;
    let name = program.file_name().unwrap_or_default();
    let link = root.join("usr/local/bin").join(name);
    symlink(program, &link).with_context(|| format!("cannot make {}", link.display()))?;
    libraries(program, root)
}

fn libraries(program: &Path, root: &Path) -> Result<()> {
    let list = must(command(["ldd"]).arg(program))?;
    for word in list.split_whitespace().filter(|w| w.starts_with('/')) {
        copy(Path::new(word), root)?;
    }
    Ok(())
}

/// Copies a file or a folder to the same path below `root`; symbolic links on the way become what they point to.
fn copy(path: &Path, root: &Path) -> Result<()> {
    let to = root.join(path.strip_prefix("/").unwrap_or(path));
    if to.exists() {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    must(command(["cp", "-rL"]).arg(path).arg(&to)).map(drop)
}

/// The folder of the newest PostgreSQL's programs.
fn postgres() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.context("PostgreSQL is missing: apt-get install postgresql")?;
    Ok(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

fn add_postgres(root: &Path) -> Result<()> {
    let bin = postgres()?;
    let base = bin.parent().context("PostgreSQL's folder")?;
    let version = base.file_name().unwrap_or_default();
    copy(&Path::new("/usr/share/postgresql").join(version), root)?;
    for module in ["plpgsql.so", "dict_snowball.so"] {
        let module = base.join("lib").join(module);
        copy(&module, root)?;
        libraries(&module, root)?;
    }
    let data = root.join("data");
    fs::create_dir(&data)?;
    let (user, maker) = POSTGRES;
    std::os::unix::fs::chown(&data, Some(maker), Some(maker))?;
    let mut initdb = Command::new(bin.join("initdb"));
    // It refuses to run as root.
    initdb.uid(maker).gid(maker).current_dir("/").env_clear().env("PATH", "/usr/bin:/bin");
    initdb.args(["--auth=trust", "--username=postgres", "--no-locale", "--encoding=UTF8", "--no-sync"]);
    must(initdb.arg("--pgdata").arg(&data))?;
    let mut settings = fs::read_to_string(data.join("postgresql.conf"))?;
    settings.push_str(
        "listen_addresses = '*'\nunix_socket_directories = '/tmp'\nfsync = off\njit = off\nshared_buffers = 16MB\n\
         dynamic_shared_memory_type = mmap\ntimezone = 'GMT'\nlog_timezone = 'GMT'\n",
    );
    fs::write(data.join("postgresql.conf"), settings)?;
    fs::write(data.join("pg_hba.conf"), "local all all trust\nhost all all all trust\n")?;
    must(command(["chown", "-R", &format!("{user}:{user}")]).arg(&data)).map(drop)
}

/// The target folder that this program was built in.
pub(crate) fn target() -> Result<PathBuf> {
    let me = std::env::current_exe().context("cannot tell where this program is")?;
    let profile = me.ancestors().find(|d| d.join("deps").is_dir());
    Ok(profile.and_then(Path::parent).context("this program is not in a target folder of cargo")?.to_owned())
}

/// The cache's folder.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = target()?.join("lab-images");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(cache)
}
