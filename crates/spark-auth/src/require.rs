//! What a route asks of its caller.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use http::{Request, Response};
use spark_core::{Context, Miswired, Name, Principal, Problem, ResponseBody, Shape};
use tower_layer::Layer;
use tower_service::Service;

use crate::answer::Challenges;
use crate::future::AuthFuture;
use crate::layer::DEFAULT_REALM;
use crate::metrics::{Caller, Forbidden};

/// Lets only some of those in whom [`AuthLayer`](crate::AuthLayer) has found out.
///
/// | | anonymous | user key | master key |
/// |---|---|---|---|
/// | [`user()`](Self::user) | 401 | passes | 403 |
/// | [`user().or_anonymous()`](Self::or_anonymous) | passes | passes | 403 |
/// | [`user().or_master()`](Self::or_master) | 401 | passes | passes |
/// | [`scope(s)`](Self::scope) | 401 | passes with the scope, else 403 | 403 |
/// | [`scope(s).or_master()`](Self::or_master) | 401 | passes with the scope, else 403 | passes |
/// | [`master()`](Self::master) | 401 | 403 | passes |
///
/// The master key stays off data routes unless a route says [`or_master`](Self::or_master): a key
/// that opens everything should travel as little as possible.
///
/// # Example
/// ```
/// use spark_auth::RequireLayer;
/// use spark_core::Name;
/// let data = RequireLayer::user().or_anonymous();
/// let keys = RequireLayer::master();
/// let metrics = RequireLayer::scope(Name::new("metrics:read")?).or_master();
/// # Ok::<(), spark_core::NameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RequireLayer {
    shared: Arc<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    users: Users,
    anonymous: bool,
    master: bool,
    realm: Box<str>,
    challenges: Challenges,
    miswired: Arc<Miswired>,
    forbidden: Forbidden,
}

#[derive(Clone, Debug)]
enum Users {
    None,
    All,
    WithScope(Name),
}

impl RequireLayer {
    /// A user key: for data routes.
    ///
    /// # Example
    /// ```
    /// let layer = spark_auth::RequireLayer::user();
    /// ```
    pub fn user() -> Self {
        Self::new(Users::All, false)
    }

    /// The master key: for the control plane.
    ///
    /// # Example
    /// ```
    /// let layer = spark_auth::RequireLayer::master();
    /// ```
    pub fn master() -> Self {
        Self::new(Users::None, true)
    }

    /// A user key with this scope.
    ///
    /// # Example
    /// ```
    /// let layer = spark_auth::RequireLayer::scope(spark_core::Name::new("metrics:read")?);
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    pub fn scope(scope: Name) -> Self {
        Self::new(Users::WithScope(scope), false)
    }

    /// Also those whom the optional mode, or an exempt path, let pass without a credential.
    ///
    /// # Example
    /// ```
    /// let layer = spark_auth::RequireLayer::user().or_anonymous();
    /// ```
    #[must_use]
    pub fn or_anonymous(self) -> Self {
        self.edit(|rule| rule.anonymous = true)
    }

    /// Also the master key.
    ///
    /// # Example
    /// ```
    /// let layer = spark_auth::RequireLayer::user().or_master();
    /// ```
    #[must_use]
    pub fn or_master(self) -> Self {
        self.edit(|rule| rule.master = true)
    }

    /// What `WWW-Authenticate` calls this service; `spark` unless told otherwise.
    ///
    /// # Example
    /// ```
    /// let layer = spark_auth::RequireLayer::user().realm(&spark_core::Name::new("acme")?);
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn realm(self, realm: &Name) -> Self {
        self.edit(|rule| {
            rule.realm = realm.as_str().into();
            rule.challenges = rule.users.challenges(&rule.realm);
        })
    }

    fn new(users: Users, master: bool) -> Self {
        Self {
            shared: Arc::new(Rule {
                challenges: users.challenges(DEFAULT_REALM),
                users,
                anonymous: false,
                master,
                realm: DEFAULT_REALM.into(),
                miswired: Arc::new(Miswired::new("auth_require")),
                forbidden: Forbidden::default(),
            }),
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut Rule)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl Users {
    fn challenges(&self, realm: &str) -> Challenges {
        match self {
            Self::WithScope(scope) => Challenges::new(realm, Some(scope)),
            Self::None | Self::All => Challenges::new(realm, None),
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::None => "master",
            Self::All => "user",
            Self::WithScope(_) => "scope",
        }
    }
}

impl Rule {
    fn judge(&self, principal: Option<&Principal>) -> Result<(), Problem> {
        match principal {
            Some(Principal::Anonymous) if self.anonymous => Ok(()),
            Some(Principal::Anonymous) => self.refuse(Caller::Anonymous, self.challenges.missing()),
            Some(Principal::Master) if self.master => Ok(()),
            Some(Principal::Master) => self.refuse(
                Caller::Master,
                (self.challenges)
                    .forbidden("The master key does not open this route: use a user key."),
            ),
            Some(Principal::User(user)) => match &self.users {
                Users::All => Ok(()),
                Users::WithScope(scope) if user.scopes.contains(scope.as_str()) => Ok(()),
                Users::WithScope(_) => self.refuse(
                    Caller::User,
                    self.challenges
                        .forbidden("This key lacks the scope that this route needs."),
                ),
                Users::None => self.refuse(
                    Caller::User,
                    self.challenges
                        .forbidden("This route needs the master key."),
                ),
            },
            // Nobody has looked who calls, or found someone of whom this crate does not know.
            None | Some(_) => {
                self.miswired
                    .report("no principal: put the auth layer outside of this layer");
                self.refuse(Caller::Unknown, self.challenges.missing())
            }
        }
    }

    fn refuse(&self, caller: Caller, problem: Problem) -> Result<(), Problem> {
        self.forbidden.count(self.users.as_str(), caller);
        Err(problem)
    }
}

impl<S> Layer<S> for RequireLayer {
    type Service = RequireService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireService {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Made by [`RequireLayer`].
///
/// # Example
/// ```
/// use spark_auth::{RequireLayer, RequireService};
/// use tower_layer::Layer;
/// let service: RequireService<&str> = RequireLayer::user().layer("the inner service");
/// ```
#[derive(Clone, Debug)]
pub struct RequireService<S> {
    inner: S,
    shared: Arc<Rule>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = AuthFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let principal = Context::of(request.extensions()).and_then(Context::principal);
        match self.shared.judge(principal) {
            Ok(()) => AuthFuture::pass(self.inner.call(request)),
            Err(problem) => {
                let shape = Shape::of(request.extensions(), request.headers());
                AuthFuture::refuse(problem, shape)
            }
        }
    }
}
