from outbox.doors.django.management.passing import Passing


class Command(Passing):
    help = "Send what is due, and go on until stopped: outbox run"
    verb = ("run",)
