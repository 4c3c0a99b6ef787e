;;; dg-lsp-commands.el --- Commands for the server and its engine  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; What can be asked of the server besides completions, each a command and an
;; entry of the menu in the mode line.

;;; Code:

(require 'ansi-color)
(require 'dg-lsp-server)
(require 'dg-lsp-eglot)
(require 'dg-lsp-connection)
(require 'dg-lsp-status)

(defvar dg-lsp-mode)

(defun dg-lsp-explain ()
  "Tell why nothing is offered here."
  (interactive)
  (let* ((server (dg-lsp-server-or-lose))
         (document (plist-get (dg-lsp-server-place server) :textDocument)))
    (dg-lsp-server-command
     server "dg.explain" (list (plist-get document :uri))
     (lambda (answer)
       (message "dg-lsp: %s" (or (plist-get answer :reason)
                                 (plist-get answer :state)))))))

(defun dg-lsp-restart-engine ()
  "End the engine and start it again."
  (interactive)
  (message "dg-lsp: restarting the engine")
  (dg-lsp-server-command (dg-lsp-server-or-lose) "dg.restartEngine" nil
                         (lambda (answer) (message "dg-lsp: %s" answer))))

(defun dg-lsp-restart-server ()
  "Start the server of this buffer anew."
  (interactive)
  (cond (dg-lsp-connection--document (dg-lsp-connection-restart))
        ((dg-lsp-eglot-current-server)
         (eglot-reconnect (dg-lsp-eglot-current-server)))
        ;; The server was not found when the mode came on.
        (dg-lsp-mode (dg-lsp-connection-attach))
        (t (call-interactively #'eglot))))

(defun dg-lsp-snooze (minutes)
  "Offer nothing unasked for MINUTES; 0 ends the pause."
  (interactive "NMinutes without completions (0 ends the pause): ")
  (dg-lsp-server-or-lose)
  (dg-lsp-server-pause-all
   minutes
   (lambda (answer)
     (message "dg-lsp: %s"
              (if-let* ((until (plist-get answer :until)))
                  (format "nothing unasked until %s" until)
                "completions go on")))))

(defun dg-lsp-toggle ()
  "Switch completions off, or on again, everywhere."
  (interactive)
  (let ((off (eq (plist-get dg-lsp-settings :enabled) :json-false)))
    (dg-lsp-configure :enabled (if off t :json-false))
    (message "dg-lsp: completions are %s" (if off "on" "off"))))

(defun dg-lsp-toggle-drafts ()
  "Watch completions crystallise, or do not any more."
  (interactive)
  (let ((on (eq (plist-get dg-lsp-settings :drafts) t)))
    (dg-lsp-configure :drafts (if on :json-false t))
    (message "dg-lsp: drafts are %s" (if on "not shown" "shown"))))

(defun dg-lsp-set-steps (count)
  "Let the model refine a completion COUNT times at most.
More denoising is slower and better; nil leaves it to the model."
  (interactive (list (dg-lsp--read-steps)))
  (dg-lsp-configure :maxDenoisingSteps count)
  (message "dg-lsp: %s" (if count (format "at most %d denoising steps" count)
                          "as many denoising steps as the model wants")))

(defun dg-lsp--read-steps ()
  "Ask for the number of times to denoise; nothing is nil."
  (let ((answer (read-string "Denoising steps at most (empty: the model's own): "
                             nil nil "")))
    (cond ((string-empty-p answer) nil)
          ((string-match-p "\\`[1-9][0-9]*\\'" answer)
           (string-to-number answer))
          (t (user-error "Not a number of steps: %s" answer)))))

(defun dg-lsp-select-model ()
  "Choose the model: one that the server knows, or a folder with a checkpoint."
  (interactive)
  (dg-lsp-server-command
   (dg-lsp-server-or-lose) "dg.models" nil
   (lambda (models)
     ;; Not within the process filter, where waiting for keys stops the server.
     (run-with-timer 0 nil #'dg-lsp--choose-model (append models nil)))))

(defun dg-lsp--choose-model (models)
  "Let the user choose one of MODELS or a folder."
  (let* ((choices (append (mapcar #'dg-lsp--model-choice models)
                          '(("Another folder…" . other))))
         (current (cl-find-if (lambda (model) (eq (plist-get model :current) t))
                              models))
         (chosen (completing-read "Model: " choices nil t nil nil
                                  (and current
                                       (car (dg-lsp--model-choice current)))))
         (model (cdr (assoc chosen choices))))
    (dg-lsp-use-model
     (if (eq model 'other)
         (directory-file-name
          (expand-file-name (read-directory-name "Checkpoint: " nil nil t)))
       model))))

(defun dg-lsp--model-choice (model)
  "Return what is shown for MODEL, and its setting."
  (cons (format "%s (%s)" (plist-get model :name) (plist-get model :description))
        (plist-get model :model)))

(defun dg-lsp-use-model (model)
  "Let the engine use MODEL, a name or a folder; \"\" is the one that ships."
  (dg-lsp-configure :engine (list :model model))
  (message "dg-lsp: the model is %s"
           (if (string-empty-p model) "the one that ships" model)))

(defun dg-lsp-show-log ()
  "Show the log of the server."
  (interactive)
  (display-buffer (dg-lsp-log-buffer)))

(defun dg-lsp-doctor ()
  "Show what is installed and running, and what to do about each problem."
  (interactive)
  (let ((buffer (get-buffer-create "*dg-lsp doctor*")))
    (with-current-buffer buffer
      (special-mode)
      (let ((inhibit-read-only t)) (erase-buffer)))
    (make-process :name "dg-lsp doctor" :buffer buffer :noquery t
                  :command (append dg-lsp-command '("doctor") (dg-lsp--doctor-choices))
                  :connection-type 'pipe
                  :filter #'dg-lsp--insert-output :sentinel #'ignore)
    (display-buffer buffer)))

(defun dg-lsp--doctor-choices ()
  "The options of the doctor for the model and the adapter that are chosen."
  (let ((engine (plist-get dg-lsp-settings :engine)))
    (mapcan (lambda (name)
              (let ((chosen (plist-get engine (intern (concat ":" name)))))
                (and (stringp chosen) (not (string-empty-p chosen))
                     (list (concat "--" name) chosen))))
            (list "model" "adapter"))))

(defun dg-lsp--insert-output (process output)
  "Insert OUTPUT of PROCESS, with its colours, at the end of its buffer."
  (when (buffer-live-p (process-buffer process))
    (with-current-buffer (process-buffer process)
      (let ((inhibit-read-only t))
        (save-excursion
          (goto-char (point-max))
          (insert (ansi-color-apply output)))))))

(defvar dg-lsp--menu-map
  (easy-menu-create-menu
   "dg-lsp"
   '(["Switch on or off" dg-lsp-toggle]
     ["Snooze…" dg-lsp-snooze]
     ["Select model…" dg-lsp-select-model]
     ["Denoising steps…" dg-lsp-set-steps]
     ["Watch drafts" dg-lsp-toggle-drafts
      :style toggle :selected (eq (plist-get dg-lsp-settings :drafts) t)]
     "--"
     ["Why is nothing offered?" dg-lsp-explain]
     ["Restart the engine" dg-lsp-restart-engine]
     ["Restart the server" dg-lsp-restart-server]
     ["Doctor" dg-lsp-doctor]
     ["Log" dg-lsp-show-log]))
  "The menu in the mode line.")

(defun dg-lsp-menu (event)
  "Show the menu of dg-lsp for the buffer in whose mode line EVENT was."
  (interactive "e")
  (with-selected-window (posn-window (event-start event))
    (popup-menu dg-lsp--menu-map event)))

(provide 'dg-lsp-commands)
;;; dg-lsp-commands.el ends here
