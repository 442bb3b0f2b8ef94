#!/usr/bin/perl
# GET /readings: {"greeting": ..., "readings": [[seconds, degrees], ...]}
use strict;
use warnings;
use IO::Socket::INET;

my $greeting = "Hello from the first release";
my $file     = "/readings/temperature";

$| = 1;
$SIG{TERM} = sub { exit 0 };
my $server = IO::Socket::INET->new(LocalPort => 8000, Listen => 64, ReuseAddr => 1)
    or die "cannot listen on port 8000: $!";
print "the api listens on port 8000\n";

while (1) {
    my $client = $server->accept or next;
    $client->timeout(5);
    my $request = <$client> // "";
    while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/ }
    my ($status, $body) = answer($request);
    print $client "HTTP/1.1 $status\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
        . "Content-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    close $client;
}

sub answer {
    my ($request) = @_;
    return ("404 Not Found", "{\"error\":\"try /readings\"}\n") unless $request =~ m{^GET /readings\b};
    return ("200 OK", "{\"greeting\":\"$greeting\",\"readings\":[" . join(",", readings()) . "]}\n");
}

sub readings {
    open my $in, "<", $file or return ();
    my @rows = map { /^(\d+) (-?\d+\.\d+)$/ ? "[$1,$2]" : () } <$in>;
    return @rows > 300 ? @rows[-300 .. -1] : @rows;
}
