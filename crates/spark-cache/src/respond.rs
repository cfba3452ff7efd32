//! The heads of the responses that the layer writes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, header};
use spark_core::{Problem, ResponseBody, Shape};

use crate::entry::Head;
use crate::frame_log::Reader;
use crate::status::Status;
use crate::{CacheBody, Entry};

pub(crate) fn passed<B>(response: Response<B>, status: Option<Status>) -> Response<CacheBody<B>> {
    let mut response = response.map(|body| CacheBody::passed(ResponseBody::inner(body)));
    if let Some(status) = status {
        write(status, &mut response);
    }
    response
}

pub(crate) fn hit<B>(entry: Arc<Entry>, age: Duration, left: Duration) -> Response<CacheBody<B>> {
    let (status, headers) = (entry.status(), entry.headers().clone());
    let mut response = Response::new(CacheBody::kept(entry));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
        .headers_mut()
        .insert(header::AGE, HeaderValue::from(age.as_secs()));
    write(Status::Hit { left }, &mut response);
    response
}

pub(crate) fn shared<B>(head: &Head, reader: Reader) -> Response<CacheBody<B>> {
    let mut response = Response::new(CacheBody::live(reader, head.declared));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers.clone();
    if let Some(refusal) = head.refusal {
        response.extensions_mut().insert(refusal);
    }
    write(Status::Collapsed, &mut response);
    response
}

pub(crate) fn refused<B>(
    problem: &Problem,
    shape: Shape,
    status: Option<Status>,
) -> Response<CacheBody<B>> {
    let mut response = problem.clone().into_response(shape).map(CacheBody::passed);
    if let Some(status) = status {
        write(status, &mut response);
    }
    response
}

fn write<B>(status: Status, response: &mut Response<B>) {
    let (mut parts, extensions) = (
        std::mem::take(response.headers_mut()),
        response.extensions_mut(),
    );
    status.write(&mut parts, extensions);
    *response.headers_mut() = parts;
}
